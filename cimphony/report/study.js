// Draws a study: the front, all axes in parallel, each axis alone, the yield and the table share a filter and a choice.
(() => {
  const PREFIXES = ["a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P"];
  const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]]; // cividis
  const STEPS = 16, PAGE = 25, FEW = 9;

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children.flat());
    return node;
  };
  const short = (value, digits = 4) => String(Number(value.toPrecision(digits)));
  const quantity = (value, unit, digits = 4) => {
    if (value === null || value === undefined || !Number.isFinite(value)) return "–";
    if (unit === "m2") return Math.abs(value) >= 1e-8 ? `${short(value * 1e6, digits)} mm²` : `${short(value * 1e12, digits)} µm²`;
    if (!unit || !value) return `${short(value, digits)} ${unit}`.trim();
    const power = Math.max(-6, Math.min(5, Math.floor(Math.log10(Math.abs(value) * 1.0000001) / 3)));
    return `${short(value / 10 ** (3 * power), digits)} ${PREFIXES[power + 6]}${unit}`;
  };
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    return new Proxy({}, { get: (_, name) => style.getPropertyValue(`--${name}`).trim() });
  };
  const ramp = (share) => {
    const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1), low = Math.floor(at);
    return `rgb(${RAMP[low].map((one, index) => Math.round(one + (at - low) * (RAMP[low + 1][index] - one)))})`;
  };

  // columns: axes and measures alike; words stand at the position of their value
  const readColumns = (data) => [
    ...data.axes.map((axis) => {
      const words = axis.values.some((one) => typeof one !== "number");
      return {
        name: axis.name, axis: true, unit: "", words, values: axis.values, raw: axis.at.map((at) => axis.values[at]),
        at: words ? axis.at : axis.at.map((at) => axis.values[at]),
        text: (row) => (words ? axis.values[axis.at[row]] : short(axis.values[axis.at[row]], 6)),
      };
    }),
    ...data.measures.map((one) => ({ ...one, axis: false, raw: one.values, at: one.values,
      text: (row) => quantity(one.values[row], one.unit) })),
  ];

  const niceTicks = (low, high) => {
    const step = 10 ** Math.floor(Math.log10((high - low) / 4)), factor = [1, 2, 5, 10].find((one) => (high - low) / (step * one) <= 5);
    const first = Math.ceil(low / (step * factor) - 1e-9), ticks = [];
    for (let at = first; at * step * factor <= high + step * factor * 1e-9; at++) ticks.push(at * step * factor);
    return ticks;
  };
  const logTicks = (low, high) => {
    const all = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) all.push(...[1, 2, 5].map((one) => one * 10 ** power));
    const inside = all.filter((one) => one >= low * 0.999 && one <= high * 1.001);
    const decades = inside.filter((one) => Math.abs(Math.log10(one) % 1) < 1e-6);
    if (inside.length <= 6) return inside;
    return decades.length >= 2 ? decades.filter((_, at) => at % Math.ceil(decades.length / 6) === 0) : inside.filter((_, at) => at % 2 === 0);
  };
  // positions 0 to 1 of a column's values, and where to write what
  const scaleOf = (column, room = 0.04) => {
    let low = Infinity, high = -Infinity;
    for (const one of column.at) if (one !== null) { low = Math.min(low, one); high = Math.max(high, one); }
    if (low > high) [low, high] = [0, 1];
    const log = !column.words && low > 0 && high / low > 20, to = log ? Math.log10 : (one) => one;
    const span = to(high) - to(low) || Math.abs(to(high)) || 1, start = to(low) - room * span - (to(high) === to(low) ? span / 2 : 0);
    const size = (to(high) === to(low) ? span : to(high) - to(low)) + 2 * room * span;
    const place = (one) => (one === null ? NaN : (to(one) - start) / size);
    const few = column.axis && column.values.length <= FEW;
    const ticks = column.words ? column.values.map((_, at) => at) : few ? column.values : log ? logTicks(low, high) : low === high ? [low] : niceTicks(low, high);
    const every = Math.ceil(ticks.length / 12), shown = ticks.filter((_, at) => at % every === 0);
    const told = (digits) => shown.map((one) => (column.words ? column.values[one] : quantity(one, column.unit, digits)));
    const texts = told([3, 4, 5, 6].find((digits) => new Set(told(digits)).size === shown.length) ?? 6); // no two alike
    return { place, ticks: shown.map((one, at) => ({ at: place(one), text: texts[at] })) };
  };

  const front = (columns, rows) => {
    const signs = columns.map((one) => (one.lower ? 1 : -1));
    const whole = rows.filter((row) => columns.every((one) => one.at[row] !== null))
      .map((row) => ({ row, key: columns.map((one, at) => signs[at] * one.at[row]) }));
    whole.sort((a, b) => { for (let at = 0; at < signs.length; at++) if (a.key[at] !== b.key[at]) return a.key[at] - b.key[at]; return a.row - b.row; });
    const kept = [];
    for (const one of whole) {
      const beaten = kept.some((other) => other.key.every((value, at) => value <= one.key[at]) && other.key.some((value, at) => value < one.key[at]));
      if (!beaten) kept.push(one);
    }
    return kept.map((one) => one.row);
  };

  // a canvas as sharp as the screen, drawn again whenever its size or the colours change
  const surface = (label, height, draw, attributes = {}) => {
    const canvas = make("canvas", { role: "img", "aria-label": label, style: `height:${height}px`, ...attributes });
    const redraw = () => {
      const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
      if (!width) return;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = `12px ${getComputedStyle(canvas).fontFamily}`;
      draw(pen, width, height, colours());
    };
    let asked = false;
    canvas.redraw = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; redraw(); }); } };
    new ResizeObserver(canvas.redraw).observe(canvas);
    return canvas;
  };
  const write = (pen, text, x, y, align = "left", most = Infinity) => {
    let shown = String(text);
    while (shown.length > 4 && pen.measureText(shown).width > most) shown = `${shown.slice(0, -2)}…`;
    pen.textAlign = align;
    pen.fillText(shown, x, y);
  };
  const line = (pen, points, colour, width = 1) => {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    points.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
  };
  const dot = (pen, x, y, radius) => { pen.beginPath(); pen.arc(x, y, radius, 0, 7); pen.fill(); };
  // axes of a plot; returns how positions 0 to 1 become pixels
  const frame = (pen, width, height, style, across, up, titles, left = 74) => {
    const box = { left, right: width - 14, top: 26, bottom: height - 44 };
    const x = (at) => box.left + at * (box.right - box.left), y = (at) => box.bottom - at * (box.bottom - box.top);
    const most = (box.right - box.left) / Math.max(1, across.ticks.length) - 4;
    for (const tick of up.ticks) line(pen, [[box.left, y(tick.at)], [box.right, y(tick.at)]], style.line);
    line(pen, [[box.left, box.bottom], [box.right, box.bottom]], style.quiet);
    pen.fillStyle = style.quiet;
    const every = Math.ceil(30 / Math.max(1, most));
    across.ticks.forEach((tick, at) => { if (at % every === 0) write(pen, tick.text, x(tick.at), box.bottom + 16, "center", every * most); });
    for (const tick of up.ticks) write(pen, tick.text, box.left - 7, y(tick.at) + 4, "right", box.left - 8);
    pen.fillStyle = style.ink;
    write(pen, titles[0], box.right, box.bottom + 36, "right", box.right - 10);
    write(pen, titles[1], 2, 14, "left", width - 10);
    return { x, y };
  };
  const titled = (column) => (column.axis ? column.name : `${column.name} ${column.lower ? "↓ less is better" : "↑ more is better"}`);

  const study = (place) => {
    const data = JSON.parse(place.querySelector("script.study-data").textContent);
    const all = readColumns(data), axes = all.filter((one) => one.axis), measures = all.filter((one) => !one.axis);
    const count = all[0].raw.length, named = Object.fromEntries(measures.map((one) => [one.name, one]));
    const state = { x: data.objectives[0], y: data.objectives[1] ?? data.objectives[0], third: data.objectives[2] ?? "", words: "", brushes: {}, sort: null, page: 0, chosen: null };
    const failed = (row) => row in data.messages;
    let kept = [], best = [], lowered = null;

    // the filter: brushes on the parallel axes, and words or comparisons such as adc.bits>=6
    const rowText = (row) => (lowered ??= [...Array(count).keys()].map((one) => [...all.map((column) => `${column.name}=${column.text(one)}`), failed(one) ? `failed ${data.messages[one]}` : ""].join(" ").toLowerCase()))[row];
    const compare = { "=": (a, b) => a === b, ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b };
    const termOf = (term) => {
      const [, name, sign, value] = term.match(/^([^<>=]+)(<=|>=|=|<|>)(.+)$/) ?? [];
      const column = name && (all.find((one) => one.name.toLowerCase() === name) ?? all.find((one) => one.name.toLowerCase().includes(name)));
      if (!column) return (row) => rowText(row).includes(term);
      if (column.words) return (row) => String(column.text(row)).toLowerCase() === value;
      return (row) => column.raw[row] !== null && compare[sign](column.raw[row], Number(value));
    };
    const refilter = () => {
      const terms = state.words.toLowerCase().split(/\s+/).filter(Boolean).map(termOf);
      const brushes = Object.entries(state.brushes).map(([at, [low, high]]) => [dimensions[at], low, high]);
      const inside = ([dimension, low, high], row) => { const at = dimension.scale.place(dimension.at[row]); return at >= low && at <= high; };
      kept = [...Array(count).keys()].filter((row) => terms.every((term) => term(row)) && brushes.every((brush) => inside(brush, row)));
      best = front([...new Set([state.x, state.y, state.third])].filter(Boolean).map((name) => named[name]), kept);
      state.page = 0;
      redraw();
    };
    const choose = (row) => { state.chosen = row; redraw(); };

    // the front
    const tip = make("div", { class: "tip", hidden: "" });
    const spots = { points: [] };
    const shade = () => {
      const third = named[state.third], scale = third && scaleOf(third, 0);
      return (row) => (third ? Math.floor(Math.min(0.999, scale.place(third.at[row])) * STEPS) : 0);
    };
    const frontCanvas = surface("Front: every point by two measures; arrow keys walk along the front", 400, (pen, width, height, style) => {
      const across = scaleOf(named[state.x]), up = scaleOf(named[state.y]);
      const { x, y } = frame(pen, width, height, style, across, up, [titled(named[state.x]), titled(named[state.y])]);
      const spot = (row) => [x(across.place(named[state.x].at[row])), y(up.place(named[state.y].at[row]))];
      const shown = new Set(kept), tone = shade();
      pen.fillStyle = style.line;
      for (let row = 0; row < count; row++) if (!shown.has(row) && !failed(row)) { const [px, py] = spot(row); dot(pen, px, py, 2); }
      spots.points = kept.filter((row) => !failed(row)).map((row) => [row, ...spot(row)]).filter(([, px, py]) => px === px && py === py);
      pen.globalAlpha = kept.length > 2000 ? 0.45 : 0.8;
      for (const [row, px, py] of spots.points) {
        pen.fillStyle = state.third ? ramp((tone(row) + 0.5) / STEPS) : style["series-1"];
        dot(pen, px, py, kept.length > 2000 ? 2.5 : 4);
      }
      pen.globalAlpha = 1;
      if (!state.third) line(pen, best.map(spot), style["series-2"], 1.5);
      for (const row of best) { pen.strokeStyle = style["series-2"]; pen.lineWidth = 1.6; pen.beginPath(); pen.arc(...spot(row), 5, 0, 7); pen.stroke(); }
      if (state.chosen !== null && !failed(state.chosen)) { pen.strokeStyle = style.ink; pen.lineWidth = 2.5; pen.beginPath(); pen.arc(...spot(state.chosen), 8, 0, 7); pen.stroke(); }
    }, { tabindex: "0", class: "front" });
    const nearest = (event) => {
      const area = frontCanvas.getBoundingClientRect(), px = event.clientX - area.left, py = event.clientY - area.top;
      let found = null, least = 18 ** 2;
      for (const [row, x, y] of spots.points) { const far = (x - px) ** 2 + (y - py) ** 2; if (far < least) [found, least] = [[row, x, y], far]; }
      return found;
    };
    const told = (row) => [...axes, ...measures].map((one) => `${one.name} ${one.text(row)}`);
    frontCanvas.addEventListener("pointermove", (event) => {
      const found = nearest(event);
      tip.hidden = !found;
      if (!found) return;
      tip.replaceChildren(...told(found[0]).map((one) => make("div", {}, one)));
      const wide = frontCanvas.clientWidth;
      tip.style.left = `${Math.max(0, Math.min(found[1] + 12, wide - tip.offsetWidth - 4))}px`;
      tip.style.top = `${found[2] + 12}px`;
    });
    frontCanvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    frontCanvas.addEventListener("click", (event) => { const found = nearest(event); if (found) choose(found[0]); });
    frontCanvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || !best.length) return;
      event.preventDefault();
      const at = best.indexOf(state.chosen);
      choose(best[at < 0 ? 0 : (at + step + best.length) % best.length]);
    });

    // all axes in parallel; a drag along an axis keeps what it covers, a click lets go
    const dimensions = all.filter((one) => !one.axis || one.values.length > 1).map((one) => ({ ...one, scale: scaleOf(one) }));
    let drag = null;
    const column = (at, width) => 56 + (at * (width - 112)) / Math.max(1, dimensions.length - 1);
    const parallel = surface("Parallel coordinates: one line for each point across all axes and measures", 340, (pen, width, height, style) => {
      const top = 44, bottom = height - 22, y = (at) => bottom - at * (bottom - top), tone = shade();
      const path = (row) => dimensions.map((one, at) => [column(at, width), y(one.scale.place(one.at[row]))]).filter(([, py]) => py === py);
      pen.globalAlpha = Math.max(0.05, Math.min(0.6, 60 / Math.max(1, kept.length)));
      for (const row of kept) if (!failed(row)) line(pen, path(row), state.third ? ramp((tone(row) + 0.5) / STEPS) : style["series-1"]);
      pen.globalAlpha = Math.max(0.1, Math.min(0.9, 20 / Math.max(1, best.length)));
      for (const row of best) line(pen, path(row), style["series-2"], 1.3);
      pen.globalAlpha = 1;
      if (state.chosen !== null) line(pen, path(state.chosen), style.ink, 3);
      dimensions.forEach((one, at) => {
        const x = column(at, width), most = (width - 112) / Math.max(1, dimensions.length - 1) - 8;
        line(pen, [[x, top], [x, bottom]], style.quiet);
        pen.fillStyle = style.ink;
        pen.font = `600 ${pen.font.replace(/^600 /, "")}`;
        write(pen, one.name.split(".").slice(-2).join("."), x, at % 2 ? 16 : 32, "center", 2 * most);
        pen.font = pen.font.replace(/^600 /, "");
        for (const tick of one.scale.ticks) {
          const size = pen.measureText(tick.text).width;
          pen.globalAlpha = 0.75;
          pen.fillStyle = style.paper;
          pen.fillRect(x + 3, y(tick.at) - 7, size + 4, 14);
          pen.globalAlpha = 1;
          pen.fillStyle = style.quiet;
          write(pen, tick.text, x + 5, y(tick.at) + 4);
        }
        const brush = state.brushes[at];
        if (brush) { pen.globalAlpha = 0.35; pen.fillStyle = style.accent; pen.fillRect(x - 7, y(brush[1]), 14, y(brush[0]) - y(brush[1])); pen.globalAlpha = 1; }
      });
    }, { class: "parallel", style: `height:340px;min-width:${Math.min(2400, 86 * dimensions.length)}px` });
    const spotOn = (event) => {
      const area = parallel.getBoundingClientRect();
      const at = dimensions.findIndex((_, index) => Math.abs(column(index, area.width) - (event.clientX - area.left)) < 22);
      return { at, share: (318 - (event.clientY - area.top)) / 274 };
    };
    parallel.addEventListener("pointerdown", (event) => {
      const { at, share } = spotOn(event);
      if (at < 0 || event.pointerType === "touch") return;
      drag = { at, from: share };
      parallel.setPointerCapture(event.pointerId);
    });
    parallel.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const { share } = spotOn(event);
      if (Math.abs(share - drag.from) < 0.01) return;
      state.brushes[drag.at] = [Math.min(share, drag.from), Math.max(share, drag.from)];
      drag.moved = true;
      parallel.redraw();
    });
    parallel.addEventListener("pointerup", () => {
      if (drag && !drag.moved) delete state.brushes[drag.at];
      if (drag) refilter();
      drag = null;
    });

    // each axis alone: the middle half, the median and the extremes of the measure upwards
    const quantile = (sorted, share) => { const at = share * (sorted.length - 1), low = Math.floor(at); return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]); };
    const alone = axes.filter((one) => one.values.length > 1).map((axis) => surface(`What ${axis.name} does`, 230, (pen, width, height, style) => {
      const measure = named[state.y], up = scaleOf(measure), bins = Math.min(axis.words ? 40 : 12, axis.values.length), groups = new Map();
      const at = data.axes.find((one) => one.name === axis.name).at;
      for (const row of kept) if (measure.at[row] !== null) {
        const bin = Math.floor((at[row] * bins) / axis.values.length);
        groups.has(bin) ? groups.get(bin).push(measure.at[row]) : groups.set(bin, [measure.at[row]]);
      }
      const label = (bin) => { const one = axis.values[Math.ceil((bin * axis.values.length) / bins)]; return axis.words ? one : short(one, 3); };
      const across = { ticks: [...Array(bins).keys()].map((bin) => ({ at: (bin + 0.5) / bins, text: label(bin) })) };
      const { x, y } = frame(pen, width, height, style, across, up, [axis.name, titled(measure)]);
      const half = Math.min(14, (x(1) - x(0)) / bins / 3);
      for (const [bin, values] of groups) {
        values.sort((a, b) => a - b);
        const [least, low, middle, high, most] = [0, 0.25, 0.5, 0.75, 1].map((share) => y(up.place(quantile(values, share))));
        const px = x((bin + 0.5) / bins);
        line(pen, [[px, least], [px, most]], style["series-1"]);
        pen.fillStyle = style.raised;
        pen.fillRect(px - half, high, 2 * half, low - high);
        pen.strokeStyle = style["series-1"];
        pen.strokeRect(px - half, high, 2 * half, low - high);
        line(pen, [[px - half, middle], [px + half, middle]], style["series-2"], 2.5);
      }
    }));

    // yield: the share of chips that lose at most so much of the digital model's measure
    const seeded = measures.filter((one) => one.seeds);
    const losses = (measure, row) => {
      const digital = measure.digital[row], loss = (one) => (measure.lower ? one / digital - 1 : 1 - one / digital);
      return digital ? measure.seeds[row].map((one) => 100 * loss(one)).sort((a, b) => a - b) : [];
    };
    const yields = seeded.map((measure) => surface(`Yield: share of chips by what they lose of ${measure.name}`, 260, (pen, width, height, style) => {
      const shown = state.chosen !== null && losses(measure, state.chosen).length ? state.chosen : null;
      const rows = [...best.filter((row) => row !== shown), ...(shown === null ? [] : [shown])].filter((row) => losses(measure, row).length);
      const worst = rows.map((row) => losses(measure, row).at(-1)).sort((a, b) => a - b);
      const most = Math.max(1, shown === null ? quantile(worst.length ? worst : [1], 0.75) : Math.max(quantile(worst, 0.5), losses(measure, shown).at(-1)));
      const across = { ticks: niceTicks(0, most).map((one) => ({ at: one / most, text: `${short(one)} %` })) };
      const up = { ticks: [0, 0.25, 0.5, 0.75, 1].map((one) => ({ at: one, text: `${100 * one} %` })) };
      const { x, y } = frame(pen, width, height, style, across, up, [`loss of ${measure.name} against digital, at most`, "share of chips"]);
      for (const row of rows) {
        const found = losses(measure, row), steps = [[0, 0]];
        found.forEach((one, at) => { const place = Math.max(0, Math.min(1, one / most)); steps.push([place, at / found.length], [place, one <= most ? (at + 1) / found.length : at / found.length]); });
        steps.push([1, found.filter((one) => one <= most).length / found.length]);
        pen.globalAlpha = row === shown ? 1 : Math.max(0.15, Math.min(0.8, 12 / rows.length));
        line(pen, steps.map(([a, b]) => [x(a), y(b)]), row === shown ? style.ink : style["series-1"], row === shown ? 2.5 : 1);
      }
    }));

    const yieldWords = seeded.map(() => make("figcaption", { "aria-live": "polite" }));
    const showYields = () => seeded.forEach((measure, at) => {
      const found = state.chosen === null ? [] : losses(measure, state.chosen), percent = (share) => `${short(quantile(found, share), 3)} %`;
      yieldWords[at].textContent = `Points on the front; the chosen one is thick. ${found.length ? `Of its ${found.length} chips half lose at most ${percent(0.5)} of ${measure.name}, the worst ${percent(1)}.` : ""}`;
    });

    // the chosen point
    const details = make("div", { class: "chosen", "aria-live": "polite" });
    const showChosen = () => {
      const row = state.chosen;
      if (row === null) { details.replaceChildren(make("p", { class: "quiet" }, "Choose a point in the plot or the table to see all of it.")); return; }
      const pair = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
      const spread = (one) => (one.spread?.[row] ? ` ± ${quantity(one.spread[row], one.unit, 2)}` : "");
      const parts = Object.entries(data.parts?.[row] ?? {}).sort((a, b) => b[1] - a[1]), total = parts.reduce((sum, one) => sum + one[1], 0);
      const bars = parts.slice(0, 10).map(([name, value]) => make("div", { class: "bar" }, make("span", {}, name), make("i", { style: `width:${(60 * value) / total}%` }), make("span", {}, quantity(value, "J", 3))));
      details.replaceChildren(make("dl", {}, axes.map((one) => pair(one.name, one.text(row))), measures.map((one) => pair(one.name, one.text(row) + spread(one)))),
        ...(failed(row) ? [make("p", { class: "note" }, data.messages[row])] : []), ...bars);
    };

    // the table
    const body = make("tbody"), status = make("p", { role: "status", class: "quiet small" });
    const heads = all.map((one) => make("th", { scope: "col", class: one.words ? null : "number" }, make("button", { type: "button", onclick: () => {
      state.sort = { column: one, down: state.sort?.column === one ? !state.sort.down : false };
      state.page = 0;
      showTable();
    } }, one.name)));
    const ordered = () => {
      if (!state.sort) return kept;
      const { column: by, down } = state.sort, far = (row) => by.at[row] ?? Infinity;
      return [...kept].sort((a, b) => (by.at[a] === null || by.at[b] === null ? far(a) - far(b) : (down ? -1 : 1) * (by.at[a] - by.at[b])) || a - b);
    };
    const showTable = () => {
      const rows = ordered(), pages = Math.max(1, Math.ceil(rows.length / PAGE)), onFront = new Set(best);
      state.page = Math.max(0, Math.min(pages - 1, state.page));
      const cells = (row) => [...all.map((one) => make("td", { class: one.words ? null : "number" }, one.text(row))),
        make("td", {}, failed(row) ? `failed: ${data.messages[row]}` : onFront.has(row) ? "on the front" : "")];
      body.replaceChildren(...rows.slice(state.page * PAGE, (state.page + 1) * PAGE).map((row) => make("tr", { tabindex: "0", "aria-selected": String(row === state.chosen),
        onclick: () => choose(row), onkeydown: (event) => { if (event.key === "Enter") choose(row); } }, cells(row))));
      heads.forEach((head, at) => { head.setAttribute("aria-sort", state.sort?.column === all[at] ? (state.sort.down ? "descending" : "ascending") : "none"); });
      status.textContent = `${kept.length} of ${count} points, ${best.length} on the front; page ${state.page + 1} of ${pages}`;
    };
    const turn = (by) => () => { state.page += by; showTable(); };
    const quoted = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
    const download = () => {
      const extra = measures.filter((one) => one.spread);
      const head = [...all.map((one) => one.name), ...extra.map((one) => `${one.name} spread`), "status", "message"];
      const row = (at) => [...all.map((one) => one.raw[at]), ...extra.map((one) => one.spread[at]), failed(at) ? "failed" : "done", data.messages[at] ?? ""];
      const text = [head, ...ordered().map(row)].map((one) => one.map((cell) => quoted(String(cell ?? ""))).join(",")).join("\r\n");
      const link = make("a", { href: URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" })), download: `${data.name.replace(/[^\w.-]+/g, "-")}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };

    // controls
    const picker = (label, key, empty) => {
      const names = [...(empty ? [""] : []), ...measures.map((one) => one.name)];
      const select = make("select", { onchange: () => { state[key] = select.value; refilter(); } }, names.map((one) => make("option", { value: one }, one || empty)));
      select.value = state[key];
      return make("label", {}, label, select);
    };
    const search = make("input", { type: "search", placeholder: "words, or adc.bits>=6 energy<1e-3", oninput: () => { state.words = search.value; refilter(); } });
    const reset = make("button", { type: "button", onclick: () => { state.words = search.value = ""; state.brushes = {}; state.chosen = null; refilter(); } }, "Show all");
    const legend = make("p", { class: "ramp small quiet" });
    const showLegend = () => {
      const third = named[state.third];
      legend.hidden = !third;
      if (!third) return;
      const known = third.at.filter((one) => one !== null), ends = known.length ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : [NaN, NaN];
      const bar = make("i", { style: `background:linear-gradient(90deg,${RAMP.map((one) => `rgb(${one})`)})` });
      legend.replaceChildren(`${third.name}: ${quantity(ends[0], third.unit)} `, bar, ` ${quantity(ends[1], third.unit)}`);
    };
    const redraw = () => {
      for (const one of [frontCanvas, parallel, ...alone, ...yields]) one.redraw();
      showLegend();
      showChosen();
      showYields();
      showTable();
    };
    const heading = (text) => make("h3", {}, text), caption = (text) => make("figcaption", {}, text);
    place.append(
      make("div", { class: "controls" }, picker("Across", "x"), picker("Up", "y"), picker("Colour", "third", "none"), make("label", {}, "Filter", search), reset),
      make("figure", { class: "over" }, frontCanvas, tip, legend, caption("One point per chip of the study; ringed: no other shown point is better in all chosen measures.")),
      details,
      heading("All axes at once"),
      make("figure", {}, make("div", { class: "frame", role: "region", tabindex: "0", "aria-label": "Parallel coordinates, scrollable" }, parallel), caption("Drag along an axis to keep what it covers, click it to let go; the filter above does the same by name.")),
      ...(alone.length ? [heading("Each axis alone"), make("div", { class: "panels" }, alone.map((one) => make("figure", {}, one))), make("p", { class: "quiet small" }, "Box: middle half of the points shown, line: median, whiskers: extremes.")] : []),
      ...(yields.length ? [heading("Yield"), ...yields.map((one) => make("figure", {}, one, yieldWords[yields.indexOf(one)]))] : []),
      heading("All points"),
      make("div", { class: "controls" }, make("button", { type: "button", onclick: turn(-1) }, "Previous"), make("button", { type: "button", onclick: turn(1) }, "Next"), make("button", { type: "button", onclick: download }, "Download CSV"), status),
      make("div", { class: "frame", role: "region", tabindex: "0", "aria-label": "All points of the study" }, make("table", { class: "points" }, make("thead", {}, make("tr", {}, heads, make("th", { scope: "col" }, "Status"))), body)),
    );
    refilter();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    for (const moment of ["beforeprint", "afterprint"]) window.addEventListener(moment, redraw);
  };
  document.querySelectorAll(".study").forEach(study);
})();
