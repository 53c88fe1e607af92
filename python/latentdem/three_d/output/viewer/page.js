// --- Moving

/** Moves the eye; the object is no longer seen from a picture then. */
function move(polar, azimuth, factor = 1) {
  journey++;
  look(null);
  eye.polar = Math.min(Math.max(eye.polar + polar, 0.02), Math.PI - 0.02);
  eye.azimuth += azimuth;
  eye.distance = Math.min(Math.max(eye.distance * factor, LOWEST), FARTHEST);
  draw();
}

/** Notes and says that the object is seen from a view, or from none. */
function look(i) {
  seen = i;
  element("compare").hidden = i === null;
  document.querySelectorAll(".strip button").forEach((button, j) => button.setAttribute("aria-pressed", String(j === i)));
  element("status").textContent = i === null ? "" : `Seen from ${data.views[i].name}: ${data.views[i].text}.`;
}

/** Flies to an eye, then looks from view `i`. */
function fly(to, i) {
  const from = { ...eye }, began = performance.now(), own = ++journey, time = still.matches ? 1 : 600;
  const turn = Math.atan2(Math.sin(to.azimuth - from.azimuth), Math.cos(to.azimuth - from.azimuth));
  element("turn").checked = false;
  look(null);
  const step = (now) => {
    if (own !== journey) return;
    const done = Math.min(Math.max((now - began) / time, 0), 1), eased = done * done * (3 - 2 * done);
    eye = { polar: from.polar + (to.polar - from.polar) * eased, azimuth: from.azimuth + turn * eased,
      distance: from.distance + (to.distance - from.distance) * eased };
    if (done < 1) requestAnimationFrame(step);
    else look(i);
    draw();
  };
  step(began);
}

const lookFrom = (i) => fly(data.views[i], i);
const reset = () => fly(START, null);

function turn(before) {
  const own = ++journey;
  look(null);
  const step = (now) => {
    if (own !== journey || !element("turn").checked) return;
    eye.azimuth += Math.min(now - before, 100) / 4000;
    before = now;
    draw();
    requestAnimationFrame(step);
  };
  step(before);
}

/** The nearest view whose picture is at this place of the canvas. */
function viewAt(x, y) {
  const m = matrix();
  let best = null, nearest = Infinity;
  data.views.forEach((view, i) => {
    if (i === seen || !shown(view, i)) return;
    const ends = planes[i].ends.map((point) => onScreen(point, m));
    if (ends.includes(null)) return;
    const sides = ends.map((a, j) => {
      const b = ends[(j + 1) % 4];
      return (b.x - a.x) * (y - a.y) - (b.y - a.y) * (x - a.x);
    });
    const depth = Math.min(...ends.map((end) => end.w));
    if ((sides.every((s) => s >= 0) || sides.every((s) => s <= 0)) && depth < nearest) [best, nearest] = [i, depth];
  });
  return best;
}

const fingers = new Map();
let travelled = 0, spread = 0;

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, event);
  travelled = fingers.size === 1 ? 0 : Infinity;
  spread = 0;
});

canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) {
    canvas.classList.toggle("pointing", gl !== null && viewAt(event.offsetX, event.offsetY) !== null);
    return;
  }
  const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
  travelled += Math.hypot(x, y);
  fingers.set(event.pointerId, event);
  if (travelled < 5) return;
  canvas.classList.add("dragging");
  element("turn").checked = false;
  if (fingers.size === 1) {
    move(-y * 0.008, -x * 0.008);
  } else {
    const [a, b] = fingers.values();
    const apart = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    if (spread > 0) move(0, 0, spread / apart);
    spread = apart;
  }
});

for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    const known = fingers.delete(event.pointerId);
    if (fingers.size === 0) canvas.classList.remove("dragging");
    if (!known || name === "pointercancel" || travelled >= 5) return;
    const found = viewAt(event.offsetX, event.offsetY);
    if (found !== null) lookFrom(found);
  });
}

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  move(0, 0, Math.exp(Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 100) * 0.0015));
}, { passive: false });

const KEYS = {
  ArrowLeft: () => move(0, -STEP),
  ArrowRight: () => move(0, STEP),
  ArrowUp: () => move(-STEP, 0),
  ArrowDown: () => move(STEP, 0),
  "+": () => move(0, 0, 1 / 1.1),
  "=": () => move(0, 0, 1 / 1.1),
  "-": () => move(0, 0, 1.1),
  0: reset,
  Home: reset,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.type === "range" && !/^\d$/.test(event.key)) return; // its own keys move the slider
  const number = Number(event.key) - 1;
  if (KEYS[event.key]) KEYS[event.key]();
  else if (data.views[number]?.kind === "picture") lookFrom(number);
  else return;
  event.preventDefault();
});

// --- The page

element("about").textContent = data.about;
canvas.setAttribute("aria-label", `Three-dimensional view of the object with ${data.about}`);
data.views.forEach((view, i) => {
  view.place = axes(view).place;
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  view.image = document.createElement("img");
  view.image.alt = "";
  view.image.src = view.picture;
  const name = document.createElement("span"), text = document.createElement("span");
  name.textContent = view.kind === "picture" ? `${i + 1}: ${view.name}` : "";
  text.textContent = view.caption;
  text.className = "quiet";
  button.append(view.image, name, text);
  button.addEventListener("click", () => lookFrom(i));
  element(view.kind === "picture" ? "pictures" : "views").append(button);
});
element("reset").addEventListener("click", reset);
element("turn").addEventListener("change", () => turn(performance.now()));
for (const id of ["cameras", "fresh", "shape", "share"]) element(id).addEventListener("input", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(draw).observe(canvas);

gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
if (gl === null) {
  element("trouble").hidden = false;
  element("trouble").textContent = "This browser offers no WebGL 2, so the object cannot be drawn; the pictures are beside it.";
} else {
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", prepare);
  const images = data.views.map((view) => view.image);
  if (data.mesh.texture) {
    skin = new Image();
    skin.src = data.mesh.texture;
    images.push(skin);
  }
  Promise.allSettled(images.map((image) => image.decode())).then(prepare);
}
