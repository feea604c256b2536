//! The plot: wall time per operation and peer, as SVG. Bars are medians, whiskers p10 to p99, on a
//! logarithmic scale.

use std::fmt::Write;

use crate::operation::Operation;
use crate::report::Run;

const LEFT: f64 = 52.0;
const TOP: f64 = 40.0;
const HEIGHT: f64 = 260.0;
const BAR: f64 = 11.0;
const GAP: f64 = 22.0;
const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#d55e00", "#009e73", "#56b4e9", "#cc79a7", "#999999", "#f0e442"];

const SHOWN: [Operation; 7] = [
    Operation::Run,
    Operation::Create,
    Operation::Start,
    Operation::State,
    Operation::Exec,
    Operation::Kill,
    Operation::Delete,
];

/// Milliseconds at the bottom and at the top.
const RANGE: (f64, f64) = (0.1, 300.0);

fn y(milliseconds: f64) -> f64 {
    let (low, high) = RANGE;
    let share = (milliseconds.clamp(low, high) / low).ln() / (high / low).ln();
    TOP + HEIGHT * (1.0 - share)
}

/// One table of the run as a plot.
pub fn svg(run: &Run<'_>, table: &str) -> String {
    let group = BAR * run.peers.len() as f64 + GAP;
    let width = LEFT + group * SHOWN.len() as f64 + 10.0;
    let mut out = String::new();
    // Writing to a String does not fail.
    let mut put = |text: std::fmt::Arguments<'_>| out.write_fmt(text).unwrap_or_default();
    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        TOP + HEIGHT + 30.0
    ));
    for line in [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0] {
        let at = y(line);
        put(format_args!(
            "<path d=\"M{LEFT} {at:.1}H{width:.0}\" stroke=\"#ddd\"/><text x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{line} ms</text>\n",
            LEFT - 4.0,
            at + 4.0
        ));
    }
    for (index, peer) in run.peers.iter().enumerate() {
        let x = LEFT + 95.0 * index as f64;
        let colour = COLOURS[index % COLOURS.len()];
        put(format_args!(
            "<rect x=\"{x:.0}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{:.0}\" y=\"19\">{}</text>\n",
            x + 14.0,
            peer.name
        ));
    }
    for (place, operation) in SHOWN.into_iter().enumerate() {
        let start = LEFT + GAP / 2.0 + group * place as f64;
        let row = run.row(table, operation);
        for (index, peer) in run.peers.iter().enumerate() {
            let Some(wall) = run.figures_of(&row, peer).map(|figures| figures.wall) else { continue };
            let (x, top, colour) =
                (start + BAR * index as f64, y(wall.median), COLOURS[index % COLOURS.len()]);
            put(format_args!(
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                 <path d=\"M{:.1} {:.1}V{:.1}\" stroke=\"black\"/>\n",
                BAR - 2.0,
                TOP + HEIGHT - top,
                x + BAR / 2.0 - 1.0,
                y(wall.p10),
                y(wall.p99)
            ));
        }
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\n",
            start + (group - GAP) / 2.0,
            TOP + HEIGHT + 18.0,
            operation.name()
        ));
    }
    put(format_args!("</svg>\n"));
    out
}
