// What a reader sees of the open page, in numbers.
(() => {
  const page = document.querySelector("article") ?? document.querySelector("main");
  const prose = page.cloneNode(true);
  prose.querySelectorAll("pre, code, mjx-container, .cell_output, dl.py").forEach(e => e.remove());
  const root = document.documentElement;
  const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const fits = e => e.getBoundingClientRect().right <= root.clientWidth + 1;
  return {
    images: [...page.querySelectorAll("img")].map(i => [i.alt, i.naturalWidth, i.width]),
    formulas: [...page.querySelectorAll("mjx-container")].map(m => {
      const box = m.getBoundingClientRect();
      return m.querySelector("mjx-merror, [data-mml-node=merror]") ? 0 : Math.min(box.width, box.height);
    }),
    prose: prose.textContent,
    heading: [...document.querySelectorAll("h1")].map(h => h.textContent).find(Boolean),
    overhang: root.scrollWidth - root.clientWidth,
    clipped: [...page.querySelectorAll("table, pre")]
      .filter(e => !fits(e) && !scrolls(e)).map(e => e.innerText.slice(0, 60)),
  };
})()
