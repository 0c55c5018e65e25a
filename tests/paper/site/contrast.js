(() => {
  const light = c => { const [r, g, b] = c.match(/[\d.]+/g).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\)$/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  const worst = {};
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;
    if (e.closest(".headerlink, .visually-hidden, style, script, mjx-assistive-mml") || !e.getClientRects().length) continue;
    // Heat maps shade by their own colours.
    if (e.closest(".lalp-heat-map")) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = e.tagName + "." + e.className;
    worst[name] = Math.min(worst[name] ?? 99, ratio);
  }
  return worst;
})()
