// Asks this machine for the cost of the chip as its knobs stand, and shows the answer.
(() => {
  const state = JSON.parse(document.getElementById("state").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.flat());
    return node;
  };
  const changes = new Map();
  let answer = null, asking = null, later = 0;

  const ask = async (path, question, signal) => {
    const response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", "X-Token": state.token }, body: JSON.stringify(question), signal });
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  };
  const complain = (words) => { $("error").textContent = words; $("error").hidden = !words; };
  const whole = (id) => { const text = $(id).value.trim(); return text === "" || Number.isNaN(Number(text)) ? text : Number(text); };
  const question = () => ({ chip: $("chip").value, changes: Object.fromEntries(changes), more: $("more").value, prompt: whole("prompt"), new_tokens: whole("new_tokens"), batch: whole("batch") });

  const factor = (ours, base) => {
    if (!ours || !base) return "";
    const ratio = ours / base;
    return Math.abs(ratio - 1) < 5e-4 ? "unchanged" : `${Number(ratio.toPrecision(3))}× ${$("chip").value}`;
  };
  const showTable = () => {
    const table = answer.tables[$("view").value], head = (text, at) => make("th", { scope: "col", class: at ? "number" : "" }, text);
    const body = table.rows.map((row) => {
      const name = make("th", { scope: "row", class: "share" }, row[0]);
      name.style.backgroundSize = `${parseFloat(row[2]) || 0}% 100%`; // the share of the energy
      return make("tr", {}, name, row.slice(1).map((cell) => make("td", { class: "number" }, cell)));
    });
    $("table").replaceChildren(make("table", {}, make("caption", {}, table.caption), make("thead", {}, make("tr", {}, table.columns.map(head))), make("tbody", {}, body)));
  };
  const show = () => {
    const names = [["Energy", "energy"], ["Latency", "latency"], ["Throughput", "throughput"], ["Area", "area"]];
    const [row] = answer.table.rows;
    $("totals").replaceChildren(...names.map(([label, key], at) => {
      const value = answer.report.totals[key], words = [make("span", {}, label), make("strong", {}, row[at + 1]), make("span", {}, factor(value, answer.base[key]))];
      return make("div", { "data-key": key, "data-value": String(value) }, words);
    }));
    const chips = answer.report.chips > 1 ? `${answer.report.chips} chips. ` : "";
    $("note").textContent = `${chips}Weights fill ${(100 * answer.report.utilisation).toFixed(1)} % of the arrays. ${answer.table.note}`;
    $("assumptions").replaceChildren(...answer.report.assumptions.map((one) => make("li", {}, one)));
    showTable();
  };
  const update = async () => {
    asking?.abort();
    asking = new AbortController();
    const mine = asking;
    document.body.classList.add("busy");
    try {
      const found = await ask("/cost", question(), mine.signal);
      complain(found.error ?? "");
      if (!answer) $("note").textContent = "";
      if (!found.error) { answer = found; show(); }
    } catch (error) {
      if (error.name !== "AbortError") complain(`No answer: ${error.message}. Is cimphony explore still running?`);
    }
    if (mine === asking) { document.body.classList.remove("busy"); document.body.dataset.answered = String(1 + Number(document.body.dataset.answered ?? 0)); }
  };
  const soon = () => { document.body.classList.add("busy"); clearTimeout(later); later = setTimeout(update, 120); };

  const knob = (one) => {
    const words = one.values.some((value) => typeof value === "string");
    const output = make("b", {}, one.words[one.at]), row = make("label", {}, make("span", {}, one.label, words ? "" : output));
    const turn = (at) => {
      output.textContent = one.words[at];
      row.classList.toggle("turned", at !== one.at);
      at === one.at ? changes.delete(one.path) : changes.set(one.path, one.values[at]);
      soon();
    };
    const input = words
      ? make("select", {}, one.words.map((word, at) => make("option", { value: String(at) }, word)))
      : make("input", { type: "range", min: "0", max: String(one.values.length - 1), step: "1", "aria-label": one.label });
    input.id = one.path;
    input.value = String(one.at);
    const tell = () => { if (!words) input.setAttribute("aria-valuetext", one.words[Number(input.value)]); };
    tell();
    input.addEventListener("input", () => { tell(); turn(Number(input.value)); });
    row.append(input);
    return row;
  };
  const renew = async () => {
    changes.clear();
    try {
      const found = await ask("/knobs", { chip: $("chip").value });
      $("knobs").replaceChildren(...found.knobs.map(knob));
      soon();
    } catch (error) { complain(`No answer: ${error.message}. Is cimphony explore still running?`); }
  };

  for (const name of state.chips) $("chip").append(make("option", { value: name }, name));
  for (const id of ["chip", "prompt", "new_tokens", "batch"]) $(id).value = String(state[id]);
  for (const view of ["component", "layer", "phase", "operation"]) $("view").append(make("option", { value: view }, view));
  $("chip").addEventListener("change", renew);
  $("reset").addEventListener("click", () => { $("more").value = ""; renew(); });
  $("view").addEventListener("change", () => answer && showTable());
  for (const id of ["prompt", "new_tokens", "batch", "more"]) $(id).addEventListener("input", soon);
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  $("save").addEventListener("click", async () => {
    try {
      const found = await ask("/save", { ...question(), name: $("name").value.trim() });
      $("saved").replaceChildren(...(found.error ? [found.error] : [`Saved ${found.saved}. The same numbers: `, make("code", {}, found.command)]));
    } catch (error) { complain(`No answer: ${error.message}. Is cimphony explore still running?`); }
  });
  renew();
})();
