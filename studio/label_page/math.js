// Typesets the TeX that the server left in <span class="al-tex">. KaTeX is loaded when the first formula turns up, from our own files.
// A formula cannot link, load or name anything (trust: false), grow beyond its pane (maxSize) or keep the browser busy (limits below).

const MAX_TEX = 3_000; // characters of one formula
const MAX_TOTAL = 20_000; // characters of all formulas of one item
const MAX_FORMULAS = 400; // of one item; the rest stays as it was written
const OPTIONS = { trust: false, throwOnError: true, strict: "ignore", maxSize: 12, maxExpand: 200, output: "htmlAndMathml" };

let loading = null;

function load(base) {
  if (!loading) {
    loading = new Promise((resolve, reject) => {
      const style = document.createElement("link");
      style.rel = "stylesheet";
      style.href = `${base}vendor/katex/katex.min.css`;
      const script = document.createElement("script");
      script.src = `${base}vendor/katex/katex.min.js`;
      script.onload = () => resolve(window.katex);
      script.onerror = () => reject(new Error("KaTeX could not be loaded"));
      document.head.append(style, script);
    }).catch((error) => {
      loading = null; // offline for a moment: the next formula tries again
      throw error;
    });
  }
  return loading;
}

// Null when there is nothing to typeset; else a promise that is kept when all formulas are done or given up.
export function typeset(root, base) {
  const spans = [...root.querySelectorAll(".al-tex:not([data-done])")];
  if (!spans.length) return null;
  if (window.katex) {
    run(window.katex, spans);
    return null;
  }
  return load(base).then((katex) => run(katex, spans), () => {});
}

function run(katex, spans) {
  let total = 0;
  for (const [n, span] of spans.entries()) {
    const tex = span.textContent;
    span.dataset.done = "yes";
    total += tex.length;
    if (n >= MAX_FORMULAS || tex.length > MAX_TEX || total > MAX_TOTAL) {
      span.classList.add("al-tex-raw");
      continue;
    }
    try {
      katex.render(tex, span, { ...OPTIONS, displayMode: span.classList.contains("al-display") });
    } catch (error) {
      span.textContent = tex; // what cannot be typeset is shown as it was written
      span.classList.add("al-tex-raw");
    }
  }
}
