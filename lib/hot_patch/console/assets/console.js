// What the pages do beyond links and forms: uploads with their progress, what is under way while it is
// under way, and pieces that take longer than a page. All of it is HTML made by the server.
"use strict";

(() => {
  // A form is sent once.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    for (const button of event.target.querySelectorAll("button")) button.disabled = true;
  });
  // A page that comes back from the browser's memory has forms that were sent.
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  upload(document.getElementById("upload"));
  live(document.getElementById("live"));
  piece(document.getElementById("compared"));

  function upload(form) {
    if (!form) return;
    const input = form.querySelector("input[type=file]");
    const state = form.querySelector(".upload-state");
    const bar = state.querySelector("progress");
    const text = state.querySelector(".upload-text");
    const token = form.querySelector("input[name=form]");
    const host = form.querySelector("input[name=_csrf_token]");
    let busy = false;

    const say = (words, bad) => {
      text.textContent = words;
      text.classList.toggle("bad", Boolean(bad));
    };

    const end = (words) => {
      busy = false;
      bar.hidden = true;
      input.value = "";
      say(words, true);
    };

    const send = (file) => {
      if (busy || !file) return;
      busy = true;
      state.hidden = false;
      bar.hidden = false;
      bar.value = 0;
      state.querySelector(".upload-name").textContent = file.name;
      say("Uploading");

      const request = new XMLHttpRequest();
      request.open("POST", form.dataset.url + "?file=" + encodeURIComponent(file.name));
      request.setRequestHeader("content-type", "application/zip");
      if (token) request.setRequestHeader("x-form-token", token.value);
      if (host) request.setRequestHeader("x-csrf-token", host.value);
      request.responseType = "json";
      request.upload.onprogress = (event) => {
        if (!event.lengthComputable) return;
        bar.value = (100 * event.loaded) / event.total;
        say(event.loaded < event.total ? `Uploading, ${Math.floor(bar.value)} %` : "Reading the archive");
      };
      request.onload = () => {
        const next = request.getResponseHeader("x-form-token");
        if (next && token) token.value = next;
        if (request.status === 201) {
          say("Done");
          location.assign(form.dataset.then + encodeURIComponent(request.response.id));
        } else {
          end((request.response && request.response.detail) || `It was refused (${request.status}).`);
        }
      };
      request.onerror = () => end("The connection broke off. Archives above the limit are refused at once.");
      request.send(file);
    };

    input.addEventListener("change", () => send(input.files[0]));
    for (const name of ["dragover", "dragleave", "drop"]) {
      form.addEventListener(name, (event) => {
        event.preventDefault();
        form.classList.toggle("over", name === "dragover");
        if (name === "drop") send(event.dataTransfer.files[0]);
      });
    }
    // What is dropped beside it shall not be opened in place of the page.
    for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  }

  // Streams of events; where they do not come through, asking again and again.
  function live(element) {
    if (!element) return;
    const result = document.querySelector("[data-state=running]");

    const show = (html) => {
      if (element.innerHTML !== html) element.innerHTML = html;
      follow();
    };

    // The page of a result is loaded again when there is one.
    let looking = false;
    const follow = async () => {
      if (!result || looking) return;
      looking = true;
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (answer.ok && !answer.redirected && !(await answer.text()).includes('data-state="running"')) location.reload();
      } catch { /* The node may be away for a moment. */ }
      looking = false;
    };
    if (result) setInterval(follow, 1000);

    const poll = async () => {
      try {
        const answer = await fetch(element.dataset.source, { headers: { accept: "text/html" } });
        if (answer.redirected) return location.reload();
        if (answer.ok) show(await answer.text());
      } catch { /* Next time. */ }
      setTimeout(poll, 2000);
    };

    // Gives whether to ask again and again instead.
    const told = (event, data) => {
      if (event === "progress") { failures = 0; show(data); }
      // Logged out, here or elsewhere: what is on the page is no longer this browser's to see.
      if (event === "ended") location.reload();
      return event === "full";
    };

    let failures = 0;
    const leaving = new AbortController();
    addEventListener("pagehide", () => leaving.abort());
    const listen = async () => {
      try {
        if (await stream(element.dataset.source, leaving.signal, told)) return poll();
      } catch {
        failures += 1;
      }
      if (leaving.signal.aborted) return;
      if (failures > 3) return poll();
      setTimeout(listen, 2000);
    };
    if (window.TextDecoderStream) listen(); else poll();
  }

  // What EventSource does, which would ask for events alone: a host's pipeline for browsers (`plug :accepts, ["html"]`)
  // answers nobody who does not take HTML. Gives true where there are no events to be had.
  async function stream(source, signal, told) {
    const answer = await fetch(source, { headers: { accept: "text/event-stream, text/html;q=0.5" }, signal });
    if (answer.redirected || !(answer.headers.get("content-type") || "").startsWith("text/event-stream")) return true;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n");
        const event = lines.find((line) => line.startsWith("event: "));
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (event && told(event.slice(7), data.join("\n"))) return true;
      }
    }
  }

  // What takes the nodes a moment to find out.
  async function piece(element) {
    if (!element || !element.querySelector("a.button")) return;
    element.setAttribute("aria-busy", "true");
    element.innerHTML = '<h2>Drift</h2><p class="empty">Comparing the nodes …</p>';
    try {
      const answer = await fetch(element.dataset.piece, { headers: { "x-piece": "1" } });
      if (answer.ok) element.innerHTML = await answer.text();
    } catch {
      element.querySelector("p").textContent = "The nodes could not be compared just now.";
    }
    element.removeAttribute("aria-busy");
  }
})();
