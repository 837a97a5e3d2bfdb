//! The chart of events over time in an HTML report.

use std::fmt::Write as _;

use super::html::{Page, escaped, grouped, short_time};
use super::render::time;

/// Size of the chart of events over time.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 10.0;
/// Maximum number of times on the horizontal axis.
const TICKS: i64 = 8;

impl Page {
    /// Events over time; `holes` are marked.
    pub(crate) fn timeline(
        &mut self,
        title: &str,
        (start, width, bars): (i64, i64, Vec<(u64, u64)>),
        holes: &[(i64, i64)],
    ) {
        let most = bars.iter().map(|bar| bar.0).max().unwrap_or(0);
        if most == 0 {
            return;
        }
        self.body.push_str("<section>");
        self.heading(title);
        let top = nice(most);
        let x = |micros: i64| {
            let whole = (width * bars.len() as i64) as f64;
            let share = ((micros - start) as f64 / whole).clamp(0.0, 1.0);
            LEFT + share * (WIDTH - LEFT)
        };
        let y = |count: u64| TOP + (1.0 - count as f64 / top as f64) * (HEIGHT - TOP - BOTTOM);
        let _ = write!(
            self.body,
            "<svg class=timeline viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">",
            escaped(title)
        );
        for step in 0..=4_u64 {
            let count = top * step / 4;
            let at = y(count);
            let _ = write!(
                self.body,
                "<line class=grid x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} /><text class=tick \
                 x={} y={:.1} text-anchor=end>{}</text>",
                LEFT - 8.0,
                at + 4.0,
                grouped(count)
            );
        }
        for (from, to) in holes {
            let (from, to) = (x(*from), x(*to));
            let _ = write!(
                self.body,
                "<rect class=hole x={from:.1} y={TOP} width={:.1} height={:.1}><title>no events</title></rect>",
                (to - from).max(2.0),
                HEIGHT - TOP - BOTTOM
            );
        }
        let step = (WIDTH - LEFT) / bars.len() as f64;
        let wide = if step > 3.0 { step - 1.0 } else { step };
        for (index, (events, failed)) in bars.iter().enumerate().filter(|(_, bar)| bar.0 > 0) {
            let from = LEFT + step * index as f64;
            let (above, split) = (y(*events), y(*failed));
            let _ = write!(
                self.body,
                "<g><title>{}: {} events, {} failed</title><rect class=good x={from:.1} \
                 y={above:.1} width={wide:.2} height={:.1} /><rect class=bad x={from:.1} \
                 y={split:.1} width={wide:.2} height={:.1} /></g>",
                short_time(start + width * index as i64),
                grouped(*events),
                grouped(*failed),
                (split - above).max(if events > failed { 0.6 } else { 0.0 }),
                HEIGHT - BOTTOM - split
            );
        }
        let span = width * bars.len() as i64;
        let step = tick_step(span);
        let mut at = (start + step - 1).div_euclid(step) * step;
        while at <= start + span {
            let anchor = match (x(at) - LEFT, WIDTH - x(at)) {
                (..20.0, _) => "start",
                (_, ..20.0) => "end",
                _ => "middle",
            };
            let _ = write!(
                self.body,
                "<text class=tick x={:.1} y={} text-anchor={anchor}>{}</text>",
                x(at),
                HEIGHT - 6.0,
                tick(at, step)
            );
            at += step;
        }
        self.body.push_str("</svg><p class=legend><span class=\"key good\"></span> succeeded ");
        self.body.push_str("<span class=\"key bad\"></span> failed (code 400 and above)");
        if !holes.is_empty() {
            self.body.push_str(" <span class=\"key hole\"></span> unusually long without events");
        }
        let _ =
            write!(self.body, "; one bar is {}; times are UTC</p>", super::gaps::duration(width));
        self.body.push_str("</section>");
    }
}

/// Returns the smallest number not less than `most` that is 1, 2, 4, 6, 8 or 10 times a power of
/// ten and divisible by four.
fn nice(most: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for step in [4, 8, 12, 16, 20, 28] {
            if step * power >= most {
                return step * power;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// Returns a round step in microseconds that results in a few labels for `span`.
fn tick_step(span: i64) -> i64 {
    const STEPS: [i64; 17] = [
        1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800,
        604_800,
    ];
    let fits = |step: &i64| span / (step * 1_000_000) <= TICKS;
    let step = STEPS.into_iter().find(fits).unwrap_or_else(|| {
        // Whole weeks.
        (span / 1_000_000 / TICKS / 604_800 + 1) * 604_800
    });
    step * 1_000_000
}

fn tick(micros: i64, step: i64) -> String {
    let text = time(micros).unwrap_or_default();
    let range = match step / 1_000_000 {
        ..60 => 11..19,
        60..43_200 => 11..16,
        43_200..86_400 => 5..16,
        _ => 0..10,
    };
    text.get(range).unwrap_or_default().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_round() {
        for (most, expected) in [(1, 4), (5, 8), (13, 16), (20, 20), (29, 40), (1001, 1200)] {
            assert_eq!(nice(most), expected, "{most}");
        }
        const DAY: i64 = 86_400_000_000;
        for (span, step) in
            [(DAY / 24, 600), (DAY, 10_800), (30 * DAY, 604_800), (900 * DAY, 17 * 604_800)]
        {
            assert_eq!(tick_step(span), step * 1_000_000, "{span}");
        }
    }
}
