// Draws every figure of the page, and refits text and height when the width changes between phone and desktop.
(function () {
  const config = {displaylogo: false, responsive: true, displayModeBar: false, scrollZoom: false};
  const drawn = [];
  function fitted(figure, width) {
    const layout = structuredClone(figure.layout);
    if (width < 560) {
      layout.font.size = 11;
      if (layout.legend) Object.assign(layout.legend, {font: {size: 11.5}, entrywidth: 0.98});
      // On a phone the legend takes one line for each entry: the figure grows by that much.
      const shown = figure.data.filter(t => t.showlegend !== false && t.name).length;
      if (layout.showlegend !== false) layout.height += 13 * shown;
      layout.margin = {l: 4, r: 8, t: 8, b: 4};
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
      const figure = JSON.parse(script.textContent);
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
