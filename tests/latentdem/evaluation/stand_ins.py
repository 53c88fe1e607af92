"""Small programs with the options and file names of published ones; each returns its input as it is."""

from __future__ import annotations

from pathlib import Path

_START = """
import argparse, glob, os, sys
from PIL import Image

def copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    Image.open(source).convert("RGB").save(target)

def kernel(target, size=9):
    Image.new("L", (size, size), 255).save(target)

def stem(path):
    return os.path.splitext(os.path.basename(path))[0]

parser = argparse.ArgumentParser()
"""

_MPRNET = """
parser.add_argument("--task", required=True, choices=["Deblurring", "Denoising", "Deraining"])
parser.add_argument("--input_dir")
parser.add_argument("--result_dir")
args = parser.parse_args()
assert os.path.exists(os.path.join(args.task, "MPRNet.py"))  # it runs in its own folder
files = glob.glob(os.path.join(args.input_dir, "*.png"))
if not files:
    raise Exception("No files found")
for path in files:
    copy(path, os.path.join(args.result_dir, stem(path) + ".png"))
"""

_RESTORMER = """
parser.add_argument("--task", required=True, choices=["Motion_Deblurring", "Deraining"])
parser.add_argument("--input_dir")
parser.add_argument("--result_dir")
args = parser.parse_args()
folder = os.path.join(args.result_dir, args.task)
files = [args.input_dir] if args.input_dir.endswith("png") else glob.glob(os.path.join(args.input_dir, "*.png"))
for path in files:
    copy(path, os.path.join(folder, stem(path) + ".png"))
"""

_NAFNET = """
parser.add_argument("-opt", required=True)
parser.add_argument("--input_path")
parser.add_argument("--output_path")
args = parser.parse_args()
assert os.path.exists(args.opt)
copy(args.input_path, args.output_path)
"""

_DEBLURGAN = """
pattern, options = sys.argv[1], dict(option[2:].split("=") for option in sys.argv[2:])
assert set(options) <= {"weights_path", "out_dir"}
for path in sorted(glob.glob(pattern)):
    copy(path, os.path.join(options["out_dir"], os.path.basename(path)))
"""

_SELFDEBLUR = """
parser.add_argument("--num_iter", type=int, default=5000)
parser.add_argument("--data_path")
parser.add_argument("--save_path")
args = parser.parse_args()
for path in sorted(glob.glob(os.path.join(args.data_path, "*.png"))):
    assert "kernel" in stem(path)  # the size of the kernel follows from the name
    copy(path, os.path.join(args.save_path, stem(path) + "_x.png"))
    kernel(os.path.join(args.save_path, stem(path) + "_k.png"), 17)
"""

_FAST_EM = """
import pickle
import numpy as np
parser.add_argument("--diffusion_config")
parser.add_argument("--input_dir")
parser.add_argument("--save_dir")
args = parser.parse_args()
os.makedirs(os.path.join(args.save_dir, "recon"))
for path in os.listdir(args.input_dir):
    with open(os.path.join(args.input_dir, path), "rb") as file:
        sample = pickle.load(file)
    picture, blur = np.asarray(sample["L"])[0], np.asarray(sample["kernel"])[0, 0]
    assert picture.shape[0] == 3 and 0 <= picture.min() and picture.max() <= 1 and sample["sigma"] == 0.01
    place = os.path.join(args.save_dir, "recon", path[:-7])
    Image.fromarray((255 * picture.transpose(1, 2, 0)).round().astype("uint8")).save(place + "_E.png")
    Image.fromarray((255 * blur / blur.max()).round().astype("uint8")).save(place + "_ker.png")
"""

_FILES = {
    "FastDiffusionEM": {"test_FastDiffEM.py": _FAST_EM},
    "MPRNet": {"demo.py": _MPRNET, "Deblurring/MPRNet.py": ""},
    "Restormer": {"demo.py": _RESTORMER},
    "NAFNet": {"basicsr/demo.py": _NAFNET, "options/test/GoPro/NAFNet-width64.yml": ""},
    "DeblurGAN-v2": {"predict.py": _DEBLURGAN},
    "Self-Deblur": {"selfdeblur_levin.py": _SELFDEBLUR},
}
FOLDERS = {"DeblurGAN-v2": "DeblurGANv2", "Self-Deblur": "SelfDeblur"}


def install(home: Path) -> None:
    """Writes all programs into folders of `home` that are called as their repositories."""
    for name, files in _FILES.items():
        for path, text in files.items():
            file = home / FOLDERS.get(name, name) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_START + text if text else "")
