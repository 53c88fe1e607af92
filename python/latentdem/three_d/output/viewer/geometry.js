"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const canvas = element("view");
const NEAR = 0.05, FAR = 30;
const LOWEST = 0.8, FARTHEST = 9; // range of the distance to the object
const STEP = Math.PI / 36; // of a key, in radians
const START = { polar: Math.max(0.5, data.views[0].polar - 0.35), azimuth: data.views[0].azimuth + 0.6, distance: 3.8 };
const SHORT = { picture: 0.4, view: 0.16 }; // distances of the drawn pictures from their cameras
const still = matchMedia("(prefers-reduced-motion: reduce)");
const tangent = Math.tan(data.field_of_view / 2);

let eye = { ...START }; // polar angle, azimuth and distance
let seen = null; // number of the view that the object is seen from
let gl, programs, mesh, planes, spots;
let skin = null; // texture of the object
let waiting = false, journey = 0;

// --- Geometry

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** Position and the directions right, up and forward of a camera that looks at the origin; z points up. */
function axes({ polar, azimuth, distance }) {
  const [sp, cp, sa, ca] = [Math.sin(polar), Math.cos(polar), Math.sin(azimuth), Math.cos(azimuth)];
  const out = [sp * ca, sp * sa, cp];
  return { place: out.map((x) => x * distance), right: [-sa, ca, 0], up: [-cp * ca, -cp * sa, sp], ahead: out.map((x) => -x) };
}

/** Matrix from the world to the frame, by columns. The square of a picture's field of view always fits in. */
function matrix() {
  const { place, right, up, ahead } = axes(eye);
  const wide = canvas.width / canvas.height;
  const [x, y] = [1 / (tangent * Math.max(wide, 1)), 1 / (tangent * Math.max(1 / wide, 1))];
  const depth = (FAR + NEAR) / (FAR - NEAR), shift = (2 * FAR * NEAR) / (FAR - NEAR);
  const rows = [
    [...right.map((v) => v * x), -dot(right, place) * x],
    [...up.map((v) => v * y), -dot(up, place) * y],
    [...ahead.map((v) => v * depth), -dot(ahead, place) * depth - shift],
    [...ahead, -dot(ahead, place)],
  ];
  return new Float32Array([0, 1, 2, 3].flatMap((column) => rows.map((row) => row[column])));
}

/** Corners of the picture of a view in space: upper left, upper right, lower right, lower left. */
function corners(view) {
  const { place, right, up, ahead } = axes(view), far = SHORT[view.kind], half = far * tangent;
  return [[-1, 1], [1, 1], [1, -1], [-1, -1]].map(([h, v]) =>
    place.map((p, i) => p + ahead[i] * far + right[i] * half * h + up[i] * half * v));
}

/** Place of a point on the canvas in CSS pixels, and its distance; null behind the eye. */
function onScreen(point, m) {
  const [x, y, , w] = [0, 1, 2, 3].map((row) => m[row] * point[0] + m[4 + row] * point[1] + m[8 + row] * point[2] + m[12 + row]);
  if (w < NEAR) return null;
  return { x: (x / w + 1) / 2 * canvas.clientWidth, y: (1 - y / w) / 2 * canvas.clientHeight, w };
}
