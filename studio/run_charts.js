// What the charts do in the browser; `element` holds them, `trigger` tells the page, `watch` says when they were drawn anew.
// The server draws (studio/plots.py): here values are read off at one step on all charts, a part of the steps is chosen to be
// drawn large, one chart is enlarged, and a chart is saved as PNG. Gradio changes the drawing in place while a run goes on, so
// nothing is kept in it: where the pointer is stands in `at`, the rest in the page.
const SVG = 'svg[data-lines]';
let at = null;      // the step that is read off, null = none
let drag = null;    // {svg, from}: a part of the steps is being marked

const frame = svg => JSON.parse(svg.dataset.frame);
const number = (value, percent) => percent ? (100 * value).toFixed(1) + ' %' : String(Number(value.toPrecision(4))).replace(/^-/, '−');

function stepAt(svg, clientX) {
  const box = svg.getBoundingClientRect(), f = frame(svg), [width] = f.size;
  const inside = ((clientX - box.left) / box.width * width - f.left) / (width - f.left - f.right);
  return f.x[0] + Math.min(1, Math.max(0, inside)) * (f.x[1] - f.x[0]);
}

function placeOf(svg, step) {
  const f = frame(svg), [width] = f.size;
  return f.left + (step - f.x[0]) / (f.x[1] - f.x[0]) * (width - f.left - f.right);
}

function nearest(points, step) {
  if (!points.length) return null;
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < step) low = middle; else high = middle;
  }
  return Math.abs(points[low][0] - step) <= Math.abs(points[high][0] - step) ? points[low] : points[high];
}

// All charts tell their values at the step, or their last ones.
function show() {
  for (const svg of element.querySelectorAll(SVG)) {
    const chart = svg.closest('figure'), cross = svg.querySelector('.cross');
    const lines = JSON.parse(svg.dataset.lines), found = at === null ? [] : lines.map(line => nearest(line.points, at));
    const known = found.filter(Boolean);
    if (!known.length) {
      for (const told of chart.querySelectorAll('[data-last]')) told.textContent = told.dataset.last;
      cross.setAttribute('visibility', 'hidden');
      continue;
    }
    const near = known.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a)[0];
    chart.querySelectorAll('b').forEach((told, i) => {
      told.textContent = !found[i] ? '–' : number(found[i][1], svg.dataset.percent) + (found[i][0] === near ? '' : ` @${found[i][0]}`);
    });
    chart.querySelector('.st-at').textContent = `step ${near}`;
    const x = placeOf(svg, near);
    cross.setAttribute('x1', x);
    cross.setAttribute('x2', x);
    cross.setAttribute('visibility', 'visible');
  }
}

function band(to) {
  const mark = document.getElementById('st-band') || document.body.appendChild(Object.assign(document.createElement('div'), {id: 'st-band'}));
  if (to === null) return mark.remove();
  const box = drag.svg.getBoundingClientRect();
  Object.assign(mark.style, {left: Math.min(drag.from, to) + 'px', width: Math.abs(to - drag.from) + 'px', top: box.top + 'px', height: box.height + 'px'});
}

element.addEventListener('pointermove', e => {
  if (drag) band(e.clientX);
  const svg = e.target.closest(SVG);
  at = svg ? stepAt(svg, e.clientX) : null;
  show();
});
element.addEventListener('pointerleave', () => { at = null; show(); });
element.addEventListener('pointerdown', e => {
  const svg = e.target.closest(SVG);
  if (!svg || e.button || e.pointerType === 'touch') return;   // a finger scrolls the page
  e.preventDefault();
  svg.focus({preventScroll: true});
  drag = {svg, from: e.clientX};
});
window.addEventListener('pointerup', e => {
  if (!drag) return;
  const {svg, from} = drag;
  band(null);
  drag = null;
  if (!svg.isConnected || Math.abs(e.clientX - from) < 12) return;
  const [low, high] = [stepAt(svg, from), stepAt(svg, e.clientX)].map(Math.round).sort((a, b) => a - b);
  if (high > low) look({span: [low, high]});
});
element.addEventListener('keydown', e => {
  const svg = e.target.closest(SVG);
  if (!svg) return;
  if (e.key === 'Escape') return look({span: null, large: ''});
  if (e.key === 'Enter') return enlarge(svg);
  const way = {ArrowLeft: -1, ArrowRight: 1}[e.key];
  if (!way) return;
  e.preventDefault();
  const steps = [...new Set(JSON.parse(svg.dataset.lines).flatMap(line => line.points.map(p => p[0])))].sort((a, b) => a - b);
  const now = at === null ? steps.length : steps.findIndex(step => step >= at);
  at = steps[Math.min(steps.length - 1, Math.max(0, now + way))] ?? null;
  show();
});
element.addEventListener('focusout', e => { if (e.target.closest(SVG)) { at = null; show(); } });
element.addEventListener('dblclick', e => { if (e.target.closest(SVG)) look({span: null}); });
element.addEventListener('click', e => {
  const png = e.target.closest('a[data-png]');
  if (png) { e.preventDefault(); return save(png); }
  if (e.target.closest('.st-whole')) return look({span: null});
  if (e.target.closest('.st-enlarge')) enlarge(e.target);
});

function enlarge(inside) {
  const chart = inside.closest('figure');
  look({large: chart.classList.contains('large') ? '' : chart.dataset.chart});
}

function look(change) {
  const now = JSON.parse(element.querySelector('.st-charts').dataset.look);
  trigger('look', {look: JSON.stringify({...now, ...change})});
}

async function save(link) {
  const image = new Image(), source = new Blob([await (await fetch(link.href)).text()], {type: 'image/svg+xml'});
  image.src = URL.createObjectURL(source);
  await image.decode();
  const canvas = Object.assign(document.createElement('canvas'), {width: 2 * image.width, height: 2 * image.height});
  canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  const file = Object.assign(document.createElement('a'), {download: link.dataset.png + '.png', href: canvas.toDataURL('image/png')});
  file.click();
}

watch('value', show);
