// The page: it sends a photograph to the server, follows what the server says of it, and shows that.
// Every tab shows the same one restoration, because the server has only one at a time.

const $ = (id) => document.getElementById(id);
const UNREACHABLE = "The server does not answer; is latentdem serve still running?";
const downloads = ["result", "kernel_picture", "kernel_array", "uncertainty_array", "report"];
const edges = ["left", "top", "width", "height"];

let chosen = null; // the file chosen in this tab, until its restoration begins
let local = null; // its address in this browser
let job = null; // what the server says of its restoration; null where there is none
let sending = false;
let largest = Infinity; // bytes of a file that the server takes
let lost = false; // whether the server stopped answering
let shownJob = null; // the id of the restoration whose end was shown

const running = () => job !== null && job.status === "running";
const address = (kind) => `/jobs/${job.id}/${kind}?${job.looks}`;

function say(sentence) {
  $("message").textContent = sentence;
  $("message").hidden = !sentence;
}

function source(image, to) {
  if (image.getAttribute("src") !== to) image.src = to;
}

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes ? `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s` : `${Math.round(seconds)} s`;
}

// What is shown --------------------------------------------------------------------------------------------

function show() {
  const busy = running() || sending;
  const done = job !== null && job.status === "done" && !chosen;
  $("fields").disabled = busy;
  $("restore").disabled = busy || (!chosen && !job);
  $("restore").hidden = running();
  $("restore").textContent = sending ? "Sending …" : job && !chosen ? "Restore again" : "Restore";
  $("cancel").hidden = !running();
  $("cancel").disabled = running() && job.stage === "cancelling";
  $("next_seed").hidden = busy || !done;
  $("other").hidden = busy || (!chosen && !job);
  $("drop").hidden = Boolean(chosen || job);
  $("viewer").hidden = !chosen && !job;
  $("run").hidden = !running();
  showPicture(done);
  showKernel(done);
  showDownloads(done);
  showMark();
  if (running()) showProgress();
  document.title = running() ? `${Math.floor(100 * job.fraction)} % – latentdem` : "latentdem";
}

function showPicture(done) {
  const uncertain = done && Boolean(job.files.uncertainty);
  $("after").hidden = $("split").hidden = !done;
  $("show_uncertainty").hidden = !uncertain;
  $("viewer").classList.toggle("drawable", drawable());
  $("viewer").classList.toggle("done", done);
  if (chosen) {
    source($("before"), local);
    $("caption").textContent = chosen.name;
  } else if (job) {
    const looking = running() && job.files.look;
    source($("before"), address(looking ? "look" : "before"));
    $("caption").textContent = looking
      ? `${job.name}, as far as it is restored (the part that is worked on)`
      : `${job.name}, ${job.width} × ${job.height} pixels`;
    if (done) {
      const map = uncertain && $("uncertain").checked;
      source($("after"), address(map ? "uncertainty" : "after"));
      $("after").alt = map ? "How far each pixel of the restored photograph may be off" : "The photograph restored";
      $("caption").textContent += map
        ? ` – left as it was, right the standard deviation of the error: white is ${levels(job.found.uncertainty_white)}`
        : " – left as it was, right restored";
      showSplit();
    }
  }
}

// The server measures in units of [-1, 1].
function levels(deviation) {
  const count = 127.5 * deviation;
  return `${count < 10 ? count.toFixed(1) : Math.round(count)} of 255 levels or more`;
}

function showSplit() {
  $("after").style.clipPath = `inset(0 0 0 ${$("split").value}%)`;
}

function showKernel(done) {
  const kind = done ? "kernel" : running() && job.files.look_kernel ? "look_kernel" : null;
  $("blur").hidden = kind === null;
  if (kind === null) return;
  source($("kernel"), address(kind));
  $("kernel_caption").textContent = done
    ? `Blur kernel, ${job.found.kernel_size} × ${job.found.kernel_size} pixels`
    : "Blur kernel so far";
}

function showDownloads(done) {
  $("downloads").hidden = !done;
  if (!done) return;
  $("get_uncertainty_array").hidden = !job.files.uncertainty_array;
  for (const kind of downloads) $(`get_${kind}`).href = address(kind);
}

function showProgress() {
  $("progress").value = job.fraction;
  const left = job.fraction > 0.05 ? `, about ${clock((job.seconds * (1 - job.fraction)) / job.fraction)} left` : "";
  $("stage").textContent = `${job.stage}: ${Math.floor(100 * job.fraction)} % after ${clock(job.seconds)}${left}`;
}

// Said once, so that a screen reader does not repeat it and a newer message is not replaced.
function announceEnd() {
  const key = job ? job.id + job.status : null;
  if (key === shownJob) return;
  shownJob = key;
  $("status").textContent = "";
  if (!job) return;
  if (job.status === "running") {
    say("");
    $("status").textContent = `${job.name} is being restored. One photograph is restored at a time.`;
  } else if (job.status === "failed") {
    say(job.message);
  } else if (job.status === "cancelled") {
    $("status").textContent = job.message;
  } else if (job.found.explained) {
    say("");
    $("status").textContent = [`Restored in ${clock(job.seconds)}.`, ...job.notes].join(" ");
  } else {
    say(
      "No kernel was found that explains the photograph, so the result is probably wrong; try another kernel size " +
        "or seed, or a region with clear edges.",
    );
  }
}

// The region -----------------------------------------------------------------------------------------------

function drawable() {
  return !running() && !sending && Boolean(chosen || job);
}

function region() {
  const numbers = edges.map((edge) => $(edge).valueAsNumber);
  return numbers.every(Number.isFinite) ? numbers.map(Math.round) : null;
}

function setRegion(numbers) {
  edges.forEach((edge, i) => { $(edge).value = numbers ? numbers[i] : ""; });
  showMark();
}

// Where the photograph lies in its element, which may be wider: object-fit leaves bars.
function placed() {
  const image = $("before");
  const { naturalWidth: width, naturalHeight: height } = image;
  const scale = Math.min(image.clientWidth / width, image.clientHeight / height);
  return {
    scale,
    left: (image.clientWidth - scale * width) / 2,
    top: (image.clientHeight - scale * height) / 2,
    width,
    height,
  };
}

function showMark() {
  const numbers = region();
  $("mark").hidden = !numbers || !drawable() || !$("before").naturalWidth;
  if ($("mark").hidden) return;
  const { scale, left, top } = placed();
  const box = [left + scale * numbers[0], top + scale * numbers[1], scale * numbers[2], scale * numbers[3]];
  edges.forEach((edge, i) => { $("mark").style[edge] = `${box[i]}px`; });
}

let corner = null;

function pointed(event) {
  const bounds = $("frame").getBoundingClientRect();
  const { scale, left, top, width, height } = placed();
  const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
  return [
    inside((event.clientX - bounds.left - left) / scale, width),
    inside((event.clientY - bounds.top - top) / scale, height),
  ];
}

$("frame").addEventListener("pointerdown", (event) => {
  if (!drawable() || !$("before").naturalWidth) return;
  $("frame").setPointerCapture(event.pointerId);
  corner = pointed(event);
});
$("frame").addEventListener("pointermove", (event) => {
  if (!corner) return;
  const other = pointed(event);
  const first = corner.map((value, i) => Math.min(value, other[i]));
  const size = corner.map((value, i) => Math.abs(value - other[i]));
  if (Math.max(...size) > 3) setRegion([...first, ...size]);
});
$("frame").addEventListener("pointerup", () => { corner = null; });
edges.forEach((edge) => $(edge).addEventListener("input", showMark));
$("everywhere").addEventListener("click", () => setRegion(null));
$("before").addEventListener("load", showMark);
$("before").addEventListener("error", () => {
  if (chosen) $("caption").textContent = `${chosen.name} – this browser cannot show it; if it is a picture, it can be restored all the same.`;
});
window.addEventListener("resize", showMark);

// The photograph -------------------------------------------------------------------------------------------

function choose(file) {
  if (!file || running() || sending) return;
  if (file.size > largest) {
    say(`${file.name} is larger than ${Math.floor(largest / 2 ** 20)} MB; give a smaller file.`);
    return;
  }
  if (local) URL.revokeObjectURL(local);
  chosen = file;
  local = URL.createObjectURL(file);
  setRegion(null);
  say("");
  $("status").textContent = "";
  show();
  $("restore").focus();
}

$("file").addEventListener("change", () => {
  choose($("file").files[0]);
  $("file").value = ""; // the same file can be chosen again
});
$("other").addEventListener("click", () => $("file").click());
document.addEventListener("paste", (event) => choose(event.clipboardData?.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  choose(event.dataTransfer.files[0]);
});

// The server -----------------------------------------------------------------------------------------------

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", body });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.message);
  return said;
}

async function restore() {
  if (running() || sending || (!chosen && !job)) return;
  sending = true;
  say("");
  show();
  try {
    const query = new URLSearchParams({
      name: chosen ? chosen.name : job.name,
      kernel_size: $("kernel_size").value.trim(),
      seed: $("seed").value,
      quality: $("quality").value,
      uncertainty: $("uncertainty").checked ? "1" : "0",
    });
    if (region()) query.set("region", region().join());
    const data = chosen ?? (await (await fetch(`/jobs/${job.id}/photograph`)).blob());
    await post(`/jobs?${query}`, data);
    take(await (await fetch("/state")).json());
    chosen = null;
  } catch (error) {
    say(error instanceof TypeError ? UNREACHABLE : error.message);
  } finally {
    sending = false;
    show();
  }
}

$("choices").addEventListener("submit", (event) => {
  event.preventDefault();
  restore();
});
$("next_seed").addEventListener("click", () => {
  $("seed").value = ($("seed").valueAsNumber || 0) + 1;
  restore();
});
$("cancel").addEventListener("click", async () => {
  try {
    await post(`/jobs/${job.id}/cancel`);
  } catch (error) {
    say(error.message);
  }
});
$("split").addEventListener("input", showSplit);
$("uncertain").addEventListener("change", show);

function take(state) {
  job = state.job;
  largest = state.max_upload;
  announceEnd();
  show();
}

const news = new EventSource("/events");
news.addEventListener("message", (event) => take(JSON.parse(event.data)));
news.addEventListener("open", () => {
  if (lost) say("");
  lost = false;
});
news.addEventListener("error", () => {
  lost = true;
  say(UNREACHABLE);
});
