//! Speed of the scan itself.
mod generate;
use std::time::Instant;
use std::path::PathBuf;
use std::ops::ControlFlow;
use audit_query::scan::{Scan, Stages, Visitor, Place, Records, Progress};
use audit_query::filter::{Filter, FilterArgs};
use audit_query::event::Event;
struct Count(u64, hashbrown::HashMap<Vec<u8>, u64>, Vec<u8>, bool);
impl Visitor for Count {
    fn visit(&mut self, event: &Event<'_>, _: Place<'_>, _: &mut Records) {
        self.0 += 1;
        if self.3 {
            self.2.clear();
            for t in [event.user.name, event.verb, event.object.resource] { t.push_to(&mut self.2); self.2.push(0); }
            self.2.extend_from_slice(&event.status.code.unwrap_or(0).to_le_bytes());
            match self.1.get_mut(&self.2) { Some(n) => *n += 1, None => { self.1.insert(self.2.clone(), 1); } }
        }
    }
}
fn main() {
    let path = PathBuf::from(std::env::args().nth(1).filter(|a| !a.starts_with('-')).unwrap_or("/tmp/aq-bench.log".into()));
    if !path.exists() {
        let mut f = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        println!("{} events", generate::generate(&mut f, 1_000_000_000, 1).unwrap());
    }
    let size = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(std::fs::metadata(&path).unwrap().len() as f64);
    let now = jiff::ZonedDateTime::now();
    let s = |v: &str| vec![v.to_owned()];
    for threads in [1, 2] {
    for (name, args, group, stages) in [
        ("needle name", FilterArgs { name: s("stripe-signing-key"), verb: s("delete"), ..Default::default() }, false, Stages::Last),
        ("needle user", FilterArgs { user: s("mallory@example.com"), ..Default::default() }, false, Stages::Last),
        ("walk failed", FilterArgs { failed: true, ..Default::default() }, false, Stages::All),
        ("walk count all", FilterArgs::default(), false, Stages::All),
        ("group all", FilterArgs::default(), true, Stages::All),
        ("group last", FilterArgs::default(), true, Stages::Last),
    ] {
        let mut best = f64::MAX; let mut n = 0; let mut g = 0;
        for _ in 0..3 {
            let scan = Scan { inputs: audit_query::input::resolve(&[path.clone()]).unwrap(), filter: Filter::new(&args, &now).unwrap(), stages: stages.clone(), reverse: false, threads };
            let start = Instant::now();
            let (v, _) = scan.run(&Progress::default(), || Count(0, Default::default(), Vec::new(), group), |_| ControlFlow::Continue(())).unwrap();
            best = best.min(start.elapsed().as_secs_f64());
            n = v.iter().map(|v| v.0).sum(); g = v.iter().map(|v| v.1.len()).max().unwrap();
        }
        println!("{threads} threads {name}: {n} events, {g} groups, {:.3} s, {:.2} GB/s", best, size / 1e9 / best);
    }}
}
