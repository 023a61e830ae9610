"use strict";
// Draws the charts from #chart-data. Colours come from the style sheet, so that they follow the colour scheme.
(() => {
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const root = document.documentElement;
  const touch = matchMedia("(pointer: coarse)").matches;
  const NUM_FIRST = 8;  // domains shown at first: as many as there are colours
  const PRINT_WIDTH = 660;  // of A4 with its margins, in CSS pixels
  const DASHES = ["solid", "dash", "dot"];
  const config = {
    responsive: true, displaylogo: false, scrollZoom: false,
    displayModeBar: !touch, modeBarButtons: [["toImage", "resetScale2d"]],  // the default ones offer uploads
  };

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const layout = (overrides) => {
    const axis = {
      gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
      automargin: true, fixedrange: touch,
      spikecolor: colour("--muted"), spikethickness: 1, spikedash: "dot",
    };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: {family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("--muted")},
      margin: {l: 8, r: 12, t: 8, b: 8},
      dragmode: touch ? false : "zoom",
      showlegend: false,
      hoverlabel: {
        bgcolor: colour("--surface"), bordercolor: colour("--line"),
        font: {color: colour("--ink")}, namelength: 40,
      },
      modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--ink")},
      ...(root.classList.contains("printing") ? {width: PRINT_WIDTH} : {}),
      ...overrides.layout,
      xaxis: {...axis, title: {text: "step"}, rangemode: "tozero", ...overrides.xaxis},
      yaxis: {...axis, ...overrides.yaxis},
    };
  };

  const draws = [];
  const addChart = (draw) => { draws.push(draw); draw(); };
  const redraw = () => draws.forEach((draw) => draw());

  // How the weights were found: one chart per series, one picker for all of them
  const drawTrajectory = (chart, picker) => {
    const {steps, names, series} = data.trajectory;
    const values = series[chart.dataset.series];
    const shown = [...picker.querySelectorAll("input:checked")].map((box) => Number(box.value));
    const traces = shown.filter((i) => values[i].length).map((i) => ({
      x: steps, y: values[i], name: names[i], mode: "lines",
      line: {color: colour(`--line-${i % 8}`), dash: DASHES[Math.floor(i / 8) % 3], width: 1.75, simplify: false},
    }));
    const isWeight = chart.dataset.series !== "excess_losses";
    Plotly.react(chart, traces, layout({
      layout: {hovermode: traces.length > 12 ? "closest" : "x unified"},
      yaxis: {rangemode: "tozero", tickformat: isWeight ? ".3~%" : "", hoverformat: isWeight ? ".2%" : ".3f"},
    }), config);
  };

  const setUpPicker = (picker, draw) => {
    const boxes = [...picker.querySelectorAll("input[type=checkbox]")];
    const shows = {all: () => true, none: () => false, first: (i) => i < NUM_FIRST};
    picker.addEventListener("change", (event) => { if (event.target.type === "checkbox") draw(); });
    picker.addEventListener("click", (event) => {
      const show = shows[event.target.dataset.show];
      if (!show) return;
      boxes.forEach((box, i) => { box.checked = show(i); });
      draw();
    });
    picker.addEventListener("input", (event) => {
      if (event.target.type !== "search") return;
      const wanted = event.target.value.toLowerCase();
      boxes.forEach((box) => {
        const label = box.closest("label");
        label.hidden = !label.textContent.toLowerCase().includes(wanted);
      });
    });
  };

  if (data.trajectory) {
    const picker = document.querySelector(".picker");
    document.querySelectorAll("[data-series]").forEach((chart) => addChart(() => drawTrajectory(chart, picker)));
    setUpPicker(picker, redraw);
  }

  // Loss while training: one chart, any view
  const lastOf = (values) => values.findLast((value) => value !== null);

  // The range that shows what happens after the first sixth of the steps
  const laterRange = (steps, series) => {
    const later = series.flatMap((values, run) => values.filter((value, i) =>
      value !== null && steps[run][i] >= steps[run].at(-1) / 6));
    const low = Math.min(...later), high = Math.max(...later), margin = 0.06 * (high - low) || 0.01;
    return later.length ? [low - margin, high + margin] : undefined;
  };

  const minusControl = (steps, series) => series.map((values, run) => values.map((value, i) => {
    const at = steps[0].indexOf(steps[run][i]);
    return at < 0 || value === null || series[0][at] === null ? null : value - series[0][at];
  }));

  const runLine = (run) => {
    if (run === 0) return {color: colour("--muted"), width: 2.25};
    if (run === 1) return {color: colour("--accent"), width: 2.75};
    return {color: colour(`--line-${(run - 1) % 8}`), dash: DASHES[1 + (run % 2)], width: 1.75};
  };

  // A thin line for each seed of each run; minus the control of the same seed
  const seedLines = (view, isDifference) => data.losses.seeds.flatMap((bySeed, run) =>
    Object.entries(bySeed).filter(([seed, views]) => views[view] && (!isDifference || data.losses.seeds[0][seed])).map(
      ([seed, views]) => ({
        x: data.losses.steps[run],
        y: isDifference
          ? minusControl([data.losses.steps[0], data.losses.steps[run]], [data.losses.seeds[0][seed][view], views[view]])[1]
          : views[view],
        legendgroup: data.losses.runs[run], showlegend: false, hoverinfo: "skip", mode: "lines", opacity: 0.45,
        line: {...runLine(run), dash: "solid", width: 0.9},
      })));

  // A line of few points shows them, and one of a single point is nothing else
  const modeOf = (values) => values.length > 12 ? "lines" : "lines+markers";

  const drawLosses = (chart, view, isDifference) => {
    const {runs, steps} = data.losses;
    const loss = data.losses.views[view];
    const series = isDifference ? minusControl(steps, loss) : loss;
    const level = isDifference ? 0 : lastOf(loss[0]);
    const means = series.map((y, run) => ({
      x: steps[run], y, name: runs[run], legendgroup: runs[run], mode: modeOf(y), line: runLine(run),
    }));
    Plotly.react(chart, [...seedLines(view, isDifference), ...means],
      layout({
        layout: {
          hovermode: "x unified", showlegend: true,
          legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {color: colour("--ink")}},
          shapes: level === undefined ? [] : [{
            type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level,
            line: {color: colour("--muted"), width: 1, dash: "dot"},
          }],
        },
        yaxis: {
          title: {text: isDifference ? `nats per token, minus ${data.losses.control}` : "nats per token"},
          hoverformat: isDifference ? "+.3f" : ".3f", range: laterRange(steps, series),
        },
      }), config);
  };

  if (data.losses) {
    const view = document.getElementById("loss-view");
    const chart = document.getElementById("loss-chart");
    const isDifference = () => document.querySelector("[name=loss-as][value=difference]").checked;
    const draw = () => {
      document.getElementById("loss-title").textContent = view.selectedOptions[0].textContent;
      drawLosses(chart, Number(view.value), isDifference());
    };
    addChart(draw);
    view.closest(".controls").addEventListener("change", draw);
  }

  const taskChart = document.getElementById("task-chart");
  if (taskChart) {
    addChart(() => Plotly.react(taskChart, data.tasks.lines.map(({name, run, steps, values}) => ({
      x: steps, y: values, name, mode: "lines+markers", line: runLine(run),
    })), layout({
      layout: {
        hovermode: "x unified", showlegend: true,
        legend: {orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: {color: colour("--ink")}},
      },
      yaxis: {title: {text: "average score"}, hoverformat: ".3f"},
    }), config));
  }

  // Differences: one pair of runs at a time
  document.getElementById("pair")?.addEventListener("change", (event) => {
    document.querySelectorAll("[data-pair]").forEach((pair) => { pair.hidden = pair.dataset.pair !== event.target.value; });
  });

  // Rows of long tables by name
  document.querySelectorAll("input[data-rows]").forEach((search) => search.addEventListener("input", () => {
    const wanted = search.value.toLowerCase();
    document.querySelectorAll(search.dataset.rows).forEach((row) => {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    });
  }));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { root.classList.add("printing"); redraw(); });
  addEventListener("afterprint", () => { root.classList.remove("printing"); redraw(); });
})();
