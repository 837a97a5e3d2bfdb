//! Charts in one SVG that is legible on white and on black backgrounds.

use std::fmt::Write;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 230.0;
/// The margins of a chart.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 36.0;
/// The height of the legend, which all charts share.
const LEGEND: f64 = 30.0;

const COLOURS: [(&str, &str); 5] = [
    ("nginx", "#2da44e"),
    ("haproxy", "#3b82f6"),
    ("kap None", "#a371f7"),
    ("kap Metadata", "#e36209"),
    ("kap RequestResponse", "#d1247f"),
];

/// CPU time per request, by a parameter.
pub struct Chart {
    /// The name of the parameter.
    pub title: String,
    /// The values of the parameter, at equal distances on the horizontal axis.
    pub points: Vec<String>,
    pub lines: Vec<Line>,
    /// Whether the vertical axis is logarithmic.
    pub logarithmic: bool,
}

/// The line of one server in a chart.
pub struct Line {
    pub name: String,
    /// Microseconds for each value of the parameter.
    pub values: Vec<f64>,
}

/// Draws the charts side by side.
pub fn svg(charts: &[Chart]) -> String {
    let width = WIDTH * charts.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\">\n\
         <title>CPU time of a request in microseconds</title>\n\
         <style>text {{ fill: #24292f }} .axis {{ stroke: #8c959f; stroke-width: .5 }} \
         @media (prefers-color-scheme: dark) {{ text {{ fill: #d0d7de }} }}</style>\n",
        height = HEIGHT + LEGEND
    );
    for (index, chart) in charts.iter().enumerate() {
        chart.draw(&mut text, WIDTH * index as f64);
    }
    legend(&mut text, charts);
    text.push_str("</svg>\n");
    text
}

impl Chart {
    fn draw(&self, text: &mut String, left: f64) {
        add(text, &format!("<g transform=\"translate({left} 0)\">"));
        let (x, y) = (LEFT, TOP - 14.0);
        add(text, &format!("<text x=\"{x}\" y=\"{y}\">CPU µs/request, by {}</text>", self.title));
        for step in self.steps() {
            let (y, right) = (self.y(step), WIDTH - RIGHT);
            let line = format!("x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"");
            add(text, &format!("<line class=\"axis\" {line}/>"));
            let (x, y) = (LEFT - 5.0, y + 4.0);
            add(text, &format!("<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{step}</text>"));
        }
        for (index, point) in self.points.iter().enumerate() {
            let (x, y) = (self.x(index), HEIGHT - BOTTOM + 16.0);
            let place = format!("x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\"");
            add(text, &format!("<text {place}>{point}</text>"));
        }
        for line in &self.lines {
            let colour = colour(&line.name);
            let places: Vec<(f64, f64)> = (line.values.iter().enumerate())
                .map(|(index, &value)| (self.x(index), self.y(value)))
                .collect();
            let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"");
            add(text, &format!("<polyline {style} points=\"{}\"/>", path.join(" ")));
            for (x, y) in places {
                let place = format!("cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"");
                add(text, &format!("<circle {place} fill=\"{colour}\"/>"));
            }
        }
        add(text, "</g>");
    }

    fn x(&self, index: usize) -> f64 {
        let gaps = self.points.len().saturating_sub(1).max(1) as f64;
        // Some space to the axis on both sides.
        let (left, right) = (LEFT + 16.0, WIDTH - RIGHT - 16.0);
        left + (right - left) * index as f64 / gaps
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = (self.scale(self.lowest()), self.scale(self.highest()));
        let share = (self.scale(value) - low) / (high - low);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    }

    fn scale(&self, value: f64) -> f64 {
        if self.logarithmic { value.max(self.lowest()).log10() } else { value }
    }

    fn lowest(&self) -> f64 {
        if !self.logarithmic {
            return 0.0;
        }
        let least = self.values().fold(f64::INFINITY, f64::min);
        10_f64.powf(least.max(1.0).log10().floor())
    }

    fn highest(&self) -> f64 {
        let most = self.values().fold(1.0, f64::max);
        if self.logarithmic {
            return 10_f64.powf(most.log10().ceil()).max(self.lowest() * 10.0);
        }
        (most / self.step()).ceil() * self.step()
    }

    /// A round step that results in three to six labels of the axis.
    fn step(&self) -> f64 {
        let most = self.values().fold(1.0, f64::max);
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let round = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
        round.into_iter().find(|step| most / step <= 6.0).unwrap_or(power * 10.0)
    }

    fn steps(&self) -> Vec<f64> {
        let next = |step: &f64| if self.logarithmic { step * 10.0 } else { step + self.step() };
        let enough = self.highest() * 1.001;
        std::iter::successors(Some(self.lowest()), |step| Some(next(step)))
            .take_while(|&step| step <= enough)
            .collect()
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.lines.iter().flat_map(|line| line.values.iter().copied())
    }
}

fn legend(text: &mut String, charts: &[Chart]) {
    let is_drawn =
        |name: &str| charts.iter().any(|chart| chart.lines.iter().any(|line| line.name == name));
    let mut x = LEFT;
    let y = HEIGHT + 8.0;
    for (name, colour) in COLOURS.into_iter().filter(|(name, _)| is_drawn(name)) {
        let name = name.replace("kap ", "kube-audit-proxy ");
        let place = format!("x=\"{x}\" y=\"{}\" width=\"14\" height=\"3\"", y - 5.0);
        add(text, &format!("<rect {place} fill=\"{colour}\"/>"));
        add(text, &format!("<text x=\"{}\" y=\"{y}\">{name}</text>", x + 20.0));
        x += 44.0 + 6.2 * name.len() as f64;
    }
}

fn colour(name: &str) -> &'static str {
    COLOURS.iter().find(|(known, _)| *known == name).map_or("#8c959f", |(_, colour)| colour)
}

fn add(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes everything");
}
