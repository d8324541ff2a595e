// Gradio's stopwatch beside "Loading" draws itself anew in every frame, and goes on when what was loading has long been there and the
// stopwatch is gone: every page at rest would paint sixty times a second for ever. It shows tenths of a second, and so need not hurry.
{
  const STOPWATCH_MS = 200;
  const nextFrame = window.requestAnimationFrame.bind(window);
  const forgetFrame = window.cancelAnimationFrame.bind(window);
  const isStopwatch = (callback) => /performance\.now\(\)\s*-[^;]*\/\s*1e3/.test(String(callback));

  // Its number is below zero, so that whoever takes it back does not take back somebody's frame of the same number.
  window.requestAnimationFrame = (callback) => {
    if (isStopwatch(callback)) return -setTimeout(() => callback(performance.now()), STOPWATCH_MS);
    return nextFrame(callback);
  };
  window.cancelAnimationFrame = (number) => (number < 0 ? clearTimeout(-number) : forgetFrame(number));
}

// Leaving a page ends what it was still being sent. Gradio takes that for a lost connection and says so in red until the next page is
// there. Whoever goes on using this one, or is still here some seconds later, has not left (the address was a file's) and is told what
// there is to tell.
{
  const LEFT_MS = 5000;  // a message stands longer
  let still = 0;
  const leaving = (is) => {
    clearTimeout(still);
    document.documentElement.classList.toggle('st-leaving', is);
    if (is) still = setTimeout(leaving, LEFT_MS, false);
  };
  window.addEventListener('beforeunload', () => leaving(true), true);
  for (const sign of ['pageshow', 'pointerdown', 'keydown']) window.addEventListener(sign, () => leaving(false), true);
}
