//! Generates the table with which the proxy converts Kubernetes' protobuf to JSON.
//!
//! `table` only needs the published crates k8s-pb and k8s-openapi, and `exceptions.txt`, which
//! contains what the crates lack: pointers, `omitempty`, and newer fields. `exceptions ROOT...`
//! generates that file from Kubernetes' Go sources (`staging/src/k8s.io` of a checkout of
//! kubernetes/kubernetes; several, the newest last), whose struct tags are authoritative.

mod crates;
mod emit;
mod go;
mod model;

use anyhow::{Context, Result, bail};

const EXCEPTIONS: &str = include_str!("../exceptions.txt");

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["table"] => {
            let mut model = crates::read()?;
            model::apply(&mut model, EXCEPTIONS).context("exceptions.txt")?;
            print!("{}", emit::source(&model)?);
        }
        ["exceptions", ref roots @ ..] if !roots.is_empty() => {
            let mut model = model::Model::default();
            for root in roots {
                model::merge(
                    &mut model,
                    go::read(root.as_ref()).with_context(|| root.to_string())?,
                );
            }
            let head = EXCEPTIONS.lines().take_while(|line| line.starts_with('#'));
            head.for_each(|line| println!("{line}"));
            print!("{}", model::exceptions(&crates::read()?, &model)?);
        }
        _ => bail!("usage: protobuf-table table | protobuf-table exceptions ROOT..."),
    }
    Ok(())
}
