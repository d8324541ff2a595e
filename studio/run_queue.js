// The queue's buttons. A button that is drawn anew keeps the focus, so that a run can be moved several places from the keyboard.
// Rows that have just changed places take no click of a pointer: it was meant for what stood there a moment ago.
let last = '', order = '', changed = 0;
const rows = () => [...element.querySelectorAll('button[data-do=out]')].map(b => b.dataset.run).join();
const key = b => b.dataset.do + b.dataset.run;
element.addEventListener('focusin', e => { const b = e.target.closest('button[data-do]'); last = b ? key(b) : ''; });
document.addEventListener('pointerdown', e => { if (!element.contains(e.target)) last = ''; });
document.addEventListener('focusin', e => { if (!element.contains(e.target)) last = ''; });
new MutationObserver(() => {
  const now = rows();
  if (order && now !== order) changed = performance.now();
  order = now;
  if (!last) return;
  const b = [...element.querySelectorAll('button[data-do]')].find(each => key(each) === last);
  if (b && document.activeElement !== b) b.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true, attributeFilter: ['data-run']}); // rows are changed in place, too
element.addEventListener('click', e => {
  const b = e.target.closest('button[data-do]');
  if (e.detail && performance.now() - changed < 300) return; // detail: 0 for a press of a key, which goes with its run
  if (b && b.getAttribute('aria-disabled') !== 'true') trigger('move', {run: b.dataset.run, to: b.dataset.do});
});
order = rows();
element.dataset.listens = 'yes'; // what is pressed from here on is heard
