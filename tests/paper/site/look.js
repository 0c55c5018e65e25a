// What a reader sees of the open page, in numbers.
(() => {
  const prose = document.querySelector("article").cloneNode(true);
  prose.querySelectorAll("pre, code, mjx-container, .cell_output, dl.py").forEach(e => e.remove());
  const root = document.documentElement;
  const scrolls = e => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const fits = e => e.getBoundingClientRect().right <= root.clientWidth + 1;
  return {
    images: [...document.querySelectorAll("article img")].map(i => [i.alt, i.naturalWidth, i.width]),
    formulas: [...document.querySelectorAll("mjx-container")].map(m => {
      const box = m.getBoundingClientRect();
      return m.querySelector("mjx-merror, [data-mml-node=merror]") ? 0 : Math.min(box.width, box.height);
    }),
    prose: prose.textContent,
    heading: document.querySelector("h1").innerText,
    overhang: root.scrollWidth - root.clientWidth,
    clipped: [...document.querySelectorAll("article table, article pre")]
      .filter(e => !fits(e) && !scrolls(e)).map(e => e.innerText.slice(0, 60)),
  };
})()
