"""Mesh of an object, fitted to views and their cameras."""
