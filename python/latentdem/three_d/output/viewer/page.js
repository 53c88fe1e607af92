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

// --- Drawing

const SHADERS = {
  mesh: [
    "attribute vec3 point, normal, colour; uniform mat4 world; varying vec3 c, n; void main() {" +
      "gl_Position = world * vec4(point, 1.0); c = colour; n = normal; }",
    "precision mediump float; varying vec3 c, n; uniform vec3 lamp; uniform float lit; void main() {" +
      "float shade = 0.45 + 0.55 * max(dot(normalize(n), lamp), 0.0);" +
      "gl_FragColor = vec4(mix(c, vec3(0.85) * shade, lit), 1.0); }",
  ],
  picture: [
    "attribute vec3 point; attribute vec2 spot; uniform mat4 world; varying vec2 s; void main() {" +
      "gl_Position = world * vec4(point, 1.0); s = spot; }",
    "precision mediump float; varying vec2 s; uniform sampler2D image; uniform float share; void main() {" +
      "gl_FragColor = texture2D(image, s) * share; if (gl_FragColor.a < 0.01) discard; }",
  ],
  line: [
    "attribute vec3 point; uniform mat4 world; void main() { gl_Position = world * vec4(point, 1.0); }",
    "precision mediump float; uniform vec4 paint; void main() { gl_FragColor = paint; }",
  ],
};

function program([vertex, fragment]) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

function buffer(values, target = gl.ARRAY_BUFFER) {
  const made = gl.createBuffer();
  gl.bindBuffer(target, made);
  gl.bufferData(target, values, gl.STATIC_DRAW);
  return made;
}

function attribute(owner, name, values, size, kind = gl.FLOAT) {
  const place = gl.getAttribLocation(owner, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, values);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, kind, kind !== gl.FLOAT, 0, 0);
}

const uniform = (owner, name) => gl.getUniformLocation(owner, name);

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
}

function texture(image) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  return made;
}

/** Sends everything to the graphics card, at the start and after it was lost. */
function prepare() {
  programs = Object.fromEntries(Object.entries(SHADERS).map(([name, texts]) => [name, program(texts)]));
  const faces = new Uint32Array(bytes(data.mesh.faces));
  mesh = {
    count: faces.length,
    faces: buffer(faces, gl.ELEMENT_ARRAY_BUFFER),
    points: buffer(new Float32Array(bytes(data.mesh.points))),
    normals: buffer(new Float32Array(bytes(data.mesh.normals))),
    colours: buffer(new Uint8Array(bytes(data.mesh.colours))),
  };
  planes = data.views.map((view) => {
    const ends = corners(view), [a, b, c, d] = ends, p = axes(view).place;
    const edges = [p, a, p, b, p, c, p, d, a, b, b, c, c, d, d, a];
    return { ends, quad: buffer(new Float32Array([a, b, d, c].flat())), edges: buffer(new Float32Array(edges.flat())),
      image: view.image.complete && view.image.naturalWidth ? texture(view.image) : null };
  });
  spots = buffer(new Float32Array([0, 0, 1, 0, 0, 1, 1, 1])); // corners of a texture
  gl.enable(gl.DEPTH_TEST);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  draw();
}

const shown = (view, i) => i === seen || element(view.kind === "picture" ? "cameras" : "fresh").checked;

function colour(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const digits = text.length === 4 ? [...text.slice(1)].map((x) => x + x) : text.slice(1).match(/../g);
  return [...digits.map((x) => parseInt(x, 16) / 255), 1];
}

function draw() {
  if (waiting || !gl) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!gl.isContextLost()) paint();
  });
}

function paint() {
  const scale = Math.min(devicePixelRatio, 2);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
  const world = matrix(), { place, ahead } = axes(eye);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);

  gl.useProgram(programs.mesh);
  gl.uniformMatrix4fv(uniform(programs.mesh, "world"), false, world);
  gl.uniform3fv(uniform(programs.mesh, "lamp"), ahead.map((x) => -x));
  gl.uniform1f(uniform(programs.mesh, "lit"), element("shape").checked ? 1 : 0);
  attribute(programs.mesh, "point", mesh.points, 3);
  attribute(programs.mesh, "normal", mesh.normals, 3);
  attribute(programs.mesh, "colour", mesh.colours, 3, gl.UNSIGNED_BYTE);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.faces);
  gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);

  const order = data.views.map((view, i) => i).filter((i) => shown(data.views[i], i));
  gl.useProgram(programs.line);
  gl.uniformMatrix4fv(uniform(programs.line, "world"), false, world);
  for (const i of order) {
    const accent = i === seen || data.views[i].kind === "picture";
    gl.uniform4fv(uniform(programs.line, "paint"), colour(accent ? "--accent" : "--quiet"));
    attribute(programs.line, "point", planes[i].edges, 3);
    gl.drawArrays(gl.LINES, 0, 16);
  }

  // Pictures are partly transparent, so the far ones come first. The one that is seen from its camera fills the
  // view in front of everything.
  const distance = (i) => dot(ahead, data.views[i].place.map((x, j) => x - place[j]));
  order.sort((a, b) => (a === seen) - (b === seen) || distance(b) - distance(a));
  gl.enable(gl.BLEND);
  gl.useProgram(programs.picture);
  gl.uniformMatrix4fv(uniform(programs.picture, "world"), false, world);
  for (const i of order.filter((i) => planes[i].image)) {
    gl.uniform1f(uniform(programs.picture, "share"), i === seen ? element("share").value / 100 : 1);
    gl.bindTexture(gl.TEXTURE_2D, planes[i].image);
    attribute(programs.picture, "point", planes[i].quad, 3);
    attribute(programs.picture, "spot", spots, 2);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }
  gl.disable(gl.BLEND);
}

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
  Promise.allSettled(data.views.map((view) => view.image.decode())).then(prepare);
}
