// --- Drawing

const SHADERS = {
  mesh: [
    "attribute vec3 point, normal, colour; attribute vec2 spot; uniform mat4 world; varying vec3 c, n;" +
      "varying vec2 s; void main() { gl_Position = world * vec4(point, 1.0); c = colour; n = normal; s = spot; }",
    "precision mediump float; varying vec3 c, n; varying highp vec2 s; uniform sampler2D skin; uniform vec3 lamp;" +
      "uniform float lit; void main() { vec3 look = c * texture2D(skin, s).rgb;" +
      "float shade = 0.45 + 0.55 * max(dot(normalize(n), lamp), 0.0);" +
      "gl_FragColor = vec4(mix(look, vec3(0.85) * shade, lit), 1.0); }",
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
  gl.generateMipmap(gl.TEXTURE_2D);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
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
    // The object has either a texture or a colour at each point; white stands for the other.
    colours: buffer(data.mesh.colours ? new Uint8Array(bytes(data.mesh.colours)) : new Uint8Array(data.mesh.count * 3).fill(255)),
    spots: buffer(data.mesh.spots ? new Float32Array(bytes(data.mesh.spots)) : new Float32Array(data.mesh.count * 2)),
    skin: texture(skin === null ? new ImageData(new Uint8ClampedArray(4).fill(255), 1) : skin),
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
  if (waiting || !spots) return; // not prepared yet
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
  attribute(programs.mesh, "spot", mesh.spots, 2);
  gl.bindTexture(gl.TEXTURE_2D, mesh.skin);
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
