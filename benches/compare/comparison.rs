//! All proxies under the same load: at full speed, and at half of the slowest one's rate.

use anyhow::Result;

use crate::Bench;
use crate::load::{Counted, Http, Load};
use crate::measure::{Case, Series, alternate};
use crate::options::Part;
use crate::report::{comparison, figures};
use crate::servers::Server;

/// The number of connections and of concurrent requests on each, by protocol; 64 requests in total.
const SHAPES: [(Http, usize, usize, &str); 2] =
    [(Http::Two, 16, 4, "HTTP/2"), (Http::One, 64, 1, "HTTP/1.1")];

/// Measures both protocols, and the fixed rate over HTTP/2.
pub fn run(bench: &mut Bench, servers: &[&Server]) -> Result<()> {
    let mut slowest = None;
    let wants_half = bench.options.wants(Part::Half);
    for (http, connections, streams, name) in SHAPES {
        let is_wanted = bench.options.wants(Part::Full) || (wants_half && http == Http::Two);
        if !is_wanted {
            continue;
        }
        let requests = bench.scale.requests;
        let load = Load { connections, streams, ..base(http, requests) };
        let title = format!(
            "{name}, {connections} connections with {streams} requests at once, {requests} requests \
             of 1.3 KB"
        );
        let series = measure(bench, servers, load, Part::Full, &title, name)?;
        let rates = series.iter().map(|series| series.median(|sample| sample.rate));
        slowest = slowest.or(rates.reduce(f64::min));
    }
    let Some(slowest) = slowest.filter(|_| wants_half) else { return Ok(()) };
    let (http, connections, streams, name) = SHAPES[0];
    let rate = (slowest / 2.0).max(connections as f64);
    let requests = (rate * bench.scale.fixed_rate.as_secs_f64()) as usize;
    let requests = requests.max(10 * connections);
    let load = Load { connections, streams, rate: Some(rate), ..base(http, requests) };
    let title = format!("{name} at {rate:.0} requests/s for all, half of what the slowest can");
    measure(bench, servers, load, Part::Half, &title, "half load")?;
    Ok(())
}

/// A load with small responses over one connection.
pub fn base(http: Http, requests: usize) -> Load {
    Load {
        http,
        connections: 1,
        streams: 1,
        requests,
        rate: None,
        body: "1.3kb",
        counted: Counted::All,
    }
}

fn measure(
    bench: &mut Bench,
    servers: &[&Server],
    load: Load,
    part: Part,
    title: &str,
    name: &str,
) -> Result<Vec<Series>> {
    let cases: Vec<Case<'_>> =
        servers.iter().map(|&server| Case { name: server.name.clone(), server, load }).collect();
    let end = bench.clock.part(part.weight());
    let series = alternate(bench, &cases, bench.scale.rounds, end)?;
    comparison(title, &series);
    bench.report.add(name, figures(&series))?;
    Ok(series)
}
