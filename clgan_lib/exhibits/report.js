"use strict";
// Without this script the page is whole. It adds sorting, filters, larger images and the browser of test images.
const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const options = (names) => names.map((name) => new Option(name));
const data = JSON.parse(find("#data").textContent);
// The number that a cell begins with, minus signs and thousands as printed; NaN where there is none.
const number = (text) => parseFloat(text.replace(/−/g, "-").replace(/(\d)[ ,](?=\d{3}(\D|$))/g, "$1"));
// A model's name has its colour before it, the one that it has in the figures.
function paint(cell) {
  const colour = data.colours[cell.textContent];
  cell.classList.toggle("model", Boolean(colour));
  cell.style.setProperty("--model", colour || "");
}
// A block is what stands under one label of the first column; a unit is a row with those that belong to it.
function blocksOf(rows, grouped) {
  const blocks = [];
  for (const row of rows) {
    const [first, second] = row.cells;
    if (!blocks.length || (grouped && first.textContent)) blocks.push({ label: first.textContent, units: [] });
    const units = blocks.at(-1).units, belongs = second?.matches("th.published, th:empty");
    if (belongs && units.length) units.at(-1).push(row);
    else units.push([row]);
  }
  return blocks;
}

function explore(figure) {
  const table = find("table", figure), heads = findAll("thead th", table), rows = findAll("tbody tr", table);
  const grouped = rows.some((row) => !row.cells[0].textContent), blocks = blocksOf(rows, grouped);
  const query = make("input", { type: "search", placeholder: "filter rows", ariaLabel: "filter rows", oninput: show });
  // In a long table, a choice for each column of labels with few of them.
  const choices = heads.flatMap((head, place) => {
    const names = [...new Set(rows.map((row) => row.cells[place].textContent))];
    if (grouped || rows.length < 25 || !head.matches(".label") || names.length < 2 || names.length > 20) return [];
    return [[place, make("select", { onchange: show, ariaLabel: head.textContent }, new Option(`${head.textContent}: all`, ""), ...options(names))]];
  });
  const chosen = (row) => choices.every(([place, { value }]) => !value || row.cells[place].textContent === value);
  let column = -1, direction = 0;
  function compare([one], [two]) {
    const [a, b] = [one, two].map((row) => row.cells[column].textContent), [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) && Number.isNaN(y)) return direction * a.localeCompare(b);
    return direction * (x - y) || Number.isNaN(x) - Number.isNaN(y); // what has no number comes last
  }
  function show() {
    const words = query.value.toLowerCase().split(/\s+/);
    blocks.forEach(({ label, units }, place) => {
      let leads = grouped; // the first row that is shown has the label
      for (const unit of direction ? units.toSorted(compare) : units) {
        const text = [label, ...unit.map((row) => row.textContent)].join(" ").toLowerCase();
        const hidden = !chosen(unit[0]) || !words.every((word) => text.includes(word));
        for (const row of unit) row.hidden = hidden;
        if (grouped) unit[0].cells[0].textContent = leads && !hidden ? label : "";
        if (grouped) unit[0].classList.toggle("opens", leads && !hidden && place > 0);
        leads &&= hidden;
        table.tBodies[0].append(...unit);
        for (const row of unit) findAll("th", row).forEach(paint);
      }
    });
    const order = direction < 0 ? "descending" : direction > 0 ? "ascending" : null;
    heads.forEach((head, i) => { head.ariaSort = i === column ? order : null; });
  }
  function sort(i) { // numbers from the largest, names from the first; then the other way round; then as printed
    const begin = heads[i].matches(".label") ? 1 : -1;
    direction = i !== column || direction === 0 ? begin : direction === begin ? -begin : 0;
    column = i;
    show();
  }
  heads.forEach((head, i) => Object.assign(head, { tabIndex: 0, title: "sort by this column", onclick: () => sort(i) }));
  if (rows.length > 8) find("figcaption", figure).after(make("div", { className: "tools" }, ...choices.map(([, choice]) => choice), query));
  show();
  // A table that fits keeps its head in sight; a wider one scrolls sideways.
  new ResizeObserver(() => table.closest(".scroll").classList.toggle("fits", table.offsetWidth <= figure.clientWidth)).observe(figure);
}

// Table 3 of another protocol in the place of the paper's: the two change places.
function chooseProtocol(figures) {
  const names = figures.map((figure) => find("figcaption", figure).textContent.split(/: |\. /)[1]);
  const choice = make("select", {}, ...options(names));
  let shown = figures[0].parentElement;
  shown.before(make("div", { className: "tools" }, make("label", {}, "protocol ", choice)));
  choice.onchange = () => {
    const chosen = figures[choice.selectedIndex].parentElement, place = new Comment();
    chosen.before(place);
    shown.replaceWith(chosen);
    place.replaceWith(shown);
    shown = chosen;
  };
}

// Content over the page: Escape or a click closes it, but not one that ends a selection of its text.
function overlay(ariaLabel, content) {
  const dialog = make("dialog", { ariaLabel }, content);
  Object.assign(dialog, { onclick: () => getSelection().isCollapsed && dialog.close(), onclose: () => dialog.remove() });
  document.body.append(dialog);
  dialog.showModal();
}
const enlarge = ({ src, alt }) => overlay(alt, make("img", { src, alt }));
// The settings of a run and its environment.
function describe(row) {
  const name = [...row.cells].slice(0, 3).map((cell) => cell.textContent).join(", ");
  overlay(name, make("pre", { textContent: `${name}\n${JSON.stringify(data.runs[name], null, 2)}` }));
}

// The levels of a grey image, 0 to 255.
async function levels(uri) {
  const image = make("img", { src: uri });
  await image.decode();
  const context = make("canvas", { width: image.width, height: image.height }).getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height).data.filter((_, i) => i % 4 === 0);
}

// Draw a mask beside its truth; returns the numbers of pixels: true and false negatives, false and true positives.
function drawMask(canvas, mask, truth) {
  const side = Math.sqrt(truth.length), image = new ImageData(side, side), count = [0, 0, 0, 0];
  const colours = [[0, 0, 0, 255], [86, 180, 233, 255], [230, 159, 0, 255], [255, 255, 255, 255]];
  truth.forEach((defective, i) => {
    const kind = (mask[i] ? 2 : 0) + (defective ? 1 : 0);
    count[kind] += 1;
    image.data.set(colours[kind], 4 * i);
  });
  Object.assign(canvas, { width: side, height: side }).getContext("2d").putImageData(image, 0, 0);
  return count;
}

// The browser of test images; data.images is what clgan_lib.exhibits.browser collects.
function browse(place) {
  const [category, order, model, previous, next, detector, slider] = findAll("[name]", place);
  const strip = find(".strip", place), body = find("tbody", place);
  let part, names = [], at = 0, rows = [];
  function arrange() { // the test images in the chosen order; what has no such number comes last
    const runs = part.models[model.value].images;
    const F1 = (name) => runs[name]?.F1[detector.value] ?? 101, score = (name) => -(runs[name]?.score ?? 0);
    const key = { F1, score, name: () => 0 }[order.value];
    names = Object.keys(part.images).sort((a, b) => key(a) - key(b));
    strip.replaceChildren(...names.map((name, i) => {
      const image = make("img", { src: part.images[name].image, alt: name });
      return make("button", { type: "button", title: name, onclick: () => show(i) }, image);
    }));
    show(0);
  }
  function enter() { // the chosen category
    part = data.images[category.value];
    const before = model.value in part.models ? model.value : Object.keys(part.models)[0];
    model.replaceChildren(...options(Object.keys(part.models)));
    model.value = before;
    find(".note", place).textContent = part.credit;
    arrange();
  }
  async function show(i) {
    at = (i + names.length) % names.length;
    const name = names[at], { defect, image, truth } = part.images[name], levelsOfTruth = levels(truth);
    [...strip.children].forEach((button, k) => { button.ariaCurrent = k === at ? "true" : null; });
    strip.scrollLeft = strip.children[at].offsetLeft - strip.offsetLeft - strip.clientWidth / 2;
    find("strong", place).textContent = `${at + 1} of ${names.length}: ${category.value}, ${name}`;
    const runs = Object.entries(part.models).filter(([, run]) => run.images[name]);
    const loaded = await Promise.all(runs.map(async ([title, { level, images }]) => {
      const own = images[name], masks = {};
      for (const post in own.masks) masks[post] = await levels(own.masks[post]);
      const map = await levels(own.map), canvas = make("canvas"), said = make("div");
      return { title, own, level, masks, map, defect, truth: await levelsOfTruth, canvas, said };
    }));
    if (names[at] !== name) return; // the reader has gone on
    rows = loaded;
    body.replaceChildren(...rows.map(({ title, own, canvas, said }) => {
      const head = make("b", { textContent: title });
      paint(head);
      const images = [image, truth, own.reconstruction, own.map].map((uri) => (uri ? make("img", { src: uri, alt: "" }) : "n/a"));
      return make("tr", {}, make("th", {}, head, said), ...[...images, canvas].map((shown) => make("td", {}, shown)));
    }));
    draw();
  }
  function draw() { // every mask, at the slider's threshold where it is one on the map
    const times = 10 ** slider.value, onMap = detector.value === "calibrated", moved = onMap && times !== 1;
    find("output", place).value = `${times.toFixed(2)} × calibrated`;
    for (const { own, level, masks, map, defect, truth, canvas, said } of rows) {
      const mask = onMap ? map.map((value) => value > level * Math.sqrt(times)) : masks[detector.value];
      const [, missed, wrong, hit] = drawMask(canvas, mask || [], truth);
      const f1 = moved ? 200 * hit / (2 * hit + wrong + missed) : own.F1[detector.value];
      const unscored = defect === "good" || f1 === undefined;
      const result = unscored ? `marked ${(100 * (hit + wrong) / truth.length).toFixed(1)} %` : `F1 ${moved ? "≈ " : ""}${f1.toFixed(1)} %`;
      canvas.hidden = !mask;
      said.textContent = `${mask ? result : "no such mask"}, score ${own.score.toPrecision(3)}`;
    }
  }
  category.append(...options(Object.keys(data.images)));
  category.onchange = enter;
  order.onchange = model.onchange = arrange;
  detector.onchange = () => (order.value === "F1" ? arrange() : draw());
  slider.oninput = () => { detector.value = "calibrated"; draw(); };
  previous.onclick = () => show(at - 1);
  next.onclick = () => show(at + 1);
  place.onkeydown = ({ key, target }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (step && !target.matches("select, input")) show(at + step);
  };
  enter();
}

document.documentElement.classList.add("js");
for (const cell of findAll("#experiments tbody th:first-child")) {
  const textContent = cell.textContent, href = `${encodeURIComponent(textContent)}/report.html`;
  if (data.links.includes(textContent)) cell.replaceChildren(make("a", { href, textContent }));
}
findAll("figure.exhibit:has(table)").forEach(explore);
if (data.protocols.length > 1) chooseProtocol(data.protocols.map((id) => document.getElementById(id)));
for (const image of findAll("figure.exhibit > img")) Object.assign(image, { tabIndex: 0, onclick: () => enlarge(image) });
for (const row of findAll("#runs tbody tr")) Object.assign(row, { tabIndex: 0, title: "settings of this run", onclick: () => describe(row) });
document.onkeydown = ({ key, target }) => { if (key === "Enter" && target.matches("th, tr, img")) target.click(); };
if (find("#browser")) browse(find("#browser"));
const mark = ({ target, isIntersecting }) => { find(`nav a[href="#${target.id}"]`).ariaCurrent = isIntersecting ? "true" : null; };
const seen = new IntersectionObserver((entries) => entries.forEach(mark), { rootMargin: "-20% 0px -75% 0px" });
findAll("section").forEach((section) => seen.observe(section));
