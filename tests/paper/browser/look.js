(() => {
  const prose = document.body.cloneNode(true);
  prose.querySelectorAll("pre, code, math, .output, svg").forEach(e => e.remove());
  const root = document.documentElement;
  return {
    images: [...document.images].map(i => [i.alt, i.naturalWidth, i.width]),
    formulas: [...document.querySelectorAll("math")].map(m => {
      const box = m.getBoundingClientRect();
      return Math.min(box.width, box.height);
    }),
    prose: prose.textContent,
    heading: document.querySelector("h1").innerText,
    overhang: root.scrollWidth - root.clientWidth,
  };
})()
