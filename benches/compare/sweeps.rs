//! CPU time per request by the number of connections, the size of the response, and the number of
//! policy rules.

use anyhow::Result;

use crate::Bench;
use crate::chart::{Chart, Line};
use crate::comparison::base;
use crate::load::{Counted, Http, Load};
use crate::measure::{Case, Series, alternate};
use crate::options::Part;
use crate::report::{figures, show, table};
use crate::servers::{Level, Own, Server};
use crate::workspace::BODIES;

const CONNECTIONS: [usize; 4] = [1, 16, 100, 1000];
const RULES: [usize; 4] = [1, 10, 50, 200];
/// More rounds add little, since only the shape of the curve matters.
const ROUNDS: usize = 3;

/// One request at a time on each of 1 to 1000 connections. Opening the connections is not measured.
pub fn connections(bench: &mut Bench, proxies: &[&Server]) -> Result<Chart> {
    let all = bench.scale.requests;
    let point = |connections: usize| {
        // A single connection is slow, so it gets fewer requests.
        let requests = if connections == 1 { all / 5 } else { all };
        let load = base(Http::Two, requests.max(2 * connections));
        (connections.to_string(), Load { connections, counted: Counted::Middle, ..load })
    };
    // A quick run has no time to open a thousand connections to each proxy.
    let points: Vec<Point> =
        CONNECTIONS.into_iter().filter(|&count| count <= all).map(point).collect();
    let series = sweep(bench, proxies, &points, Part::Connections)?;
    finish(bench, "connections", "CPU µs/request against connections", &points, proxies, &series)
}

/// Responses of 1.3 KB to 1 MB, on 16 connections.
pub fn body(bench: &mut Bench, proxies: &[&Server]) -> Result<Chart> {
    let points = BODIES.map(|(body, bytes)| {
        // At most about 400 MB.
        let requests = (bench.scale.requests / 2).min(400_000_000 / bytes);
        let requests = if bench.scale.requests < 5_000 { requests.min(50) } else { requests };
        let load = base(Http::Two, requests.max(32));
        (body.to_uppercase(), Load { connections: 16, streams: 1, body, ..load })
    });
    let series = sweep(bench, proxies, &points, Part::Body)?;
    let title = "CPU µs/request against the answer's size";
    let chart = finish(bench, "body", title, &points, proxies, &series)?;
    Ok(Chart { logarithmic: true, ..chart })
}

/// Policies of 1 to 200 rules of which the last one matches, compared with nginx.
pub fn rules(bench: &mut Bench, nginx: &Server) -> Result<Chart> {
    let start = |rules: usize| {
        let name = format!("kap Metadata, {rules} rules");
        let own = Own { name, rules, ..Own::new(Level::Metadata) };
        own.start(&bench.options.program, &bench.work, bench.upstream)
    };
    let proxies = RULES.map(start).into_iter().collect::<Result<Vec<Server>>>()?;
    let load = base(Http::Two, bench.scale.requests);
    let load = Load { connections: 16, streams: 4, ..load };
    let servers = std::iter::once(nginx).chain(&proxies);
    let cases: Vec<Case<'_>> =
        servers.map(|server| Case { name: server.name.clone(), server, load }).collect();
    let end = bench.clock.part(Part::Rules.weight());
    let series = alternate(bench, &cases, bench.scale.rounds.min(ROUNDS), end)?;
    let row = |one: &Series| vec![one.name.clone(), show(one.spread(|s| s.cpu_us), 1)];
    let rows: Vec<Vec<String>> = series.iter().map(row).collect();
    table("CPU µs/request against rules in the policy", &["", "CPU µs/request"], &rows);
    bench.report.add("rules", figures(&series))?;
    let costs: Vec<f64> = series.iter().map(|one| one.median(|s| s.cpu_us)).collect();
    Ok(Chart {
        title: "rules in the policy".to_owned(),
        points: RULES.iter().map(usize::to_string).collect(),
        lines: vec![
            Line { name: "nginx".to_owned(), values: vec![costs[0]; RULES.len()] },
            Line { name: "kap Metadata".to_owned(), values: costs[1..].to_vec() },
        ],
        logarithmic: false,
    })
}

type Point = (String, Load);

/// All points of one proxy, then those of the next.
fn sweep(
    bench: &mut Bench,
    proxies: &[&Server],
    points: &[Point],
    part: Part,
) -> Result<Vec<Series>> {
    let mut cases = Vec::new();
    for &server in proxies {
        for (name, load) in points {
            cases.push(Case { name: format!("{}, {name}", server.name), server, load: *load });
        }
    }
    let end = bench.clock.part(part.weight());
    alternate(bench, &cases, bench.scale.rounds.min(ROUNDS), end)
}

fn finish(
    bench: &mut Bench,
    name: &str,
    title: &str,
    points: &[Point],
    proxies: &[&Server],
    series: &[Series],
) -> Result<Chart> {
    bench.report.add(name, figures(series))?;
    let names = points.iter().map(|(name, _)| name.clone());
    let of_each = || proxies.iter().zip(series.chunks(points.len()));
    let row = |(proxy, own): (&&Server, &[Series])| {
        let costs = own.iter().map(|one| show(one.spread(|s| s.cpu_us), 1));
        std::iter::once(proxy.name.clone()).chain(costs).collect()
    };
    let head: Vec<String> = std::iter::once(String::new()).chain(names.clone()).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(title, &head, &of_each().map(row).collect::<Vec<_>>());
    let line = |(proxy, own): (&&Server, &[Series])| Line {
        name: proxy.name.clone(),
        values: own.iter().map(|one| one.median(|s| s.cpu_us)).collect(),
    };
    Ok(Chart {
        title: title.rsplit("against ").next().unwrap_or(title).to_owned(),
        points: names.collect(),
        lines: of_each().map(line).collect(),
        logarithmic: false,
    })
}
