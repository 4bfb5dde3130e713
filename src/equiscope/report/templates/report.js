// Draws every figure of the page, and refits text and height when the width changes between phone and desktop.
(function () {
  const config = {displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false};
  const drawn = [];
  // On a dark page inks become light and light grounds dark; the hues of the curves are readable on both.
  const dark = matchMedia('screen and (prefers-color-scheme: dark)').matches;
  const inks = {'#1f2328': '#e4e7eb', '#e3e6ea': '#2c323a', '#9aa1aa': '#6b7480', '#6b7280': '#98a1ad', '#8a8f98': '#98a1ad',
    '#0072B2': '#4aa8e0', '"white"': '"#14171b"', 'rgba(243,234,215,1)': 'rgba(52,45,28,1)', 'rgba(0,114,178,': 'rgba(74,168,224,'};
  const toned = text => dark ? Object.entries(inks).reduce((all, [light, night]) => all.replaceAll(light, night), text) : text;
  // On a phone the panels of a row stand one below another, each under its title.
  function stacked(layout) {
    const cells = Object.keys(layout).flatMap(key => {
      const axis = key.match(/^xaxis(\d*)$/), scene = layout[key].domain;
      if (axis) return [{x: layout[key], y: layout['yaxis' + axis[1]], from: [layout[key].domain, layout['yaxis' + axis[1]].domain]}];
      return /^scene\d*$/.test(key) ? [{scene: layout[key], from: [scene.x, scene.y]}] : [];
    }).filter(cell => cell.from[0] && cell.from[1]);
    if (!cells.some(cell => cell.from[0][0] > 0.05)) return;
    const rank = (y, x) => -10 * y + x, size = 1 / cells.length;
    const titles = (layout.annotations || []).sort((a, b) => rank(a.y, a.x) - rank(b.y, b.x));
    cells.sort((a, b) => rank(a.from[1][1], a.from[0][0]) - rank(b.from[1][1], b.from[0][0])).forEach((cell, k) => {
      const y = [1 - (k + 1) * size + (k + 1 < cells.length ? 0.3 * size : 0), 1 - k * size];
      if (cell.scene) cell.scene.domain = {x: [0, 1], y};
      else { cell.x.domain = [0, 1]; cell.y.domain = y; }
      if (titles[k]) Object.assign(titles[k], {x: 0.5, y: y[1], yanchor: 'bottom'});
    });
    layout.height = 330 * cells.length;
    if (layout.legend) layout.legend.y = -60 / layout.height;
  }
  function fitted(figure, width) {
    const layout = structuredClone(figure.layout);
    if (width < 560) {
      layout.font.size = 11;
      stacked(layout);
      if (layout.legend) Object.assign(layout.legend, {font: {size: 11.5}, entrywidth: 0.98});
      // On a phone the legend takes one line for each entry: the figure grows by that much.
      const shown = figure.data.filter(t => t.showlegend !== false && t.name).length;
      if (layout.showlegend !== false) layout.height += 13 * shown;
      layout.margin = {l: 4, r: 8, t: layout.annotations ? 24 : 8, b: 4};
      layout.dragmode = false;
    }
    return layout;
  }
  // Legend texts do not wrap by themselves: on a phone long ones get a line break.
  function wrapped(data, width) {
    if (width >= 560) return data;
    return data.map(t => (t.name || '').length > 42 ? {...t, name: t.name.replace(/(.{20,34}) /, '$1<br>')} : t);
  }
  function draw() {
    for (const script of document.querySelectorAll('script[data-for]')) {
      const node = document.getElementById(script.dataset.for);
      const figure = JSON.parse(toned(script.textContent));
      Plotly.newPlot(node, wrapped(figure.data, node.clientWidth), fitted(figure, node.clientWidth), config);
      drawn.push({node, figure, narrow: node.clientWidth < 560});
    }
  }
  draw();
  window.addEventListener('resize', () => {
    for (const item of drawn) {
      const narrow = item.node.clientWidth < 560;
      if (narrow === item.narrow || !item.node.clientWidth) continue;
      item.narrow = narrow;
      const width = item.node.clientWidth;
      Plotly.react(item.node, wrapped(item.figure.data, width), fitted(item.figure, width), config);
    }
  });
  document.documentElement.dataset.drawn = drawn.length;
})();
