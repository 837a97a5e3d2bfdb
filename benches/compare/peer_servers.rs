//! nginx and HAProxy: as the API server, and as proxies without an audit log.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};

use crate::peers;
use crate::process::{Process, free_port};
use crate::servers::{Server, WORKERS};
use crate::workspace::{BODIES, Workspace, path_of};

/// Starts nginx in place of the API server, over TLS with HTTP/2 or HTTP/1.1.
pub fn upstream(workspace: &Workspace) -> Result<Server> {
    let bodies = BODIES.map(|(name, _)| {
        let file = workspace.file(&format!("bodies/{name}"));
        format!("location = {} {{ alias {}; }}", path_of(name), file.display())
    });
    let answers = format!("default_type application/json;\n{}", bodies.join("\n"));
    nginx(workspace, "direct", "", &answers)
}

/// Starts nginx as a proxy in front of `upstream`, to which it only speaks HTTP/1.1. `more` are
/// additional directives of its location.
pub fn nginx_proxy(
    workspace: &Workspace,
    upstream: SocketAddr,
    name: &str,
    more: &str,
) -> Result<Server> {
    let group = format!(
        "upstream api {{ server {upstream}; keepalive 1024; keepalive_requests 100000000; }}"
    );
    let ca = workspace.file("ca.crt");
    let forward = format!(
        "location / {{
            proxy_pass https://api;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $http_host;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {};
            proxy_ssl_name localhost;
            proxy_ssl_protocols TLSv1.3;
            proxy_max_temp_file_size 0;
            proxy_read_timeout 1h;
            {more}
        }}",
        ca.display()
    );
    nginx(workspace, name, &group, &forward)
}

/// Starts HAProxy in front of `upstream`, with HTTP/2 on both sides.
pub fn haproxy(workspace: &Workspace, upstream: SocketAddr, name: &str) -> Result<Server> {
    let address = free_port()?;
    let (pem, ca) = (workspace.file("server.pem"), workspace.file("ca.crt"));
    let config = format!(
        "global
    nbthread {WORKERS}
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    http-reuse always
frontend clients
    bind {address} ssl crt {} alpn h2,http/1.1
    default_backend api
    # HTTP/2 has no reason phrase, and h2load does not understand HTTP/1.1 answers without one.
    http-response set-status 200 reason OK if {{ ssl_fc_alpn http/1.1 }} {{ status 200 }}
backend api
    server api {upstream} ssl verify required ca-file {} sni str(localhost) alpn h2
",
        pem.display(),
        ca.display()
    );
    let file = workspace.write(&format!("{name}.cfg"), &config)?;
    let mut command = Command::new(peers::find("haproxy").context("haproxy has gone")?);
    command.arg("-db").arg("-f").arg(file);
    let mut process = Process::start(name, command, workspace.path())?;
    process.wait_listening(address)?;
    Ok(Server::new(name, address, process, None))
}

fn nginx(workspace: &Workspace, name: &str, groups: &str, locations: &str) -> Result<Server> {
    let address = free_port()?;
    let folder = workspace.file(&format!("nginx-{name}"));
    std::fs::create_dir_all(&folder)?;
    let certificate = workspace.file("server.crt");
    let key = workspace.file("server.key");
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()));
    let config = format!(
        "daemon off;
{user}
worker_processes {WORKERS};
worker_rlimit_nofile 16384;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    {temporary}
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    open_file_cache max=16;
    open_file_cache_valid 1h;
    http2_max_concurrent_streams 250;
    {groups}
    server {{
        listen {address} ssl http2 backlog=4096;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        {locations}
    }}
}}
",
        folder = folder.display(),
        temporary = temporary.join("\n    "),
        certificate = certificate.display(),
        key = key.display(),
    );
    let file = workspace.write(&format!("nginx-{name}.conf"), &config)?;
    let mut command = Command::new(peers::find("nginx").context("nginx has gone")?);
    command.args(["-e", "stderr", "-p"]).arg(&folder).arg("-c").arg(file);
    let mut process = Process::start(&format!("nginx-{name}"), command, workspace.path())?;
    // It listens before its workers have started.
    process.wait_listening(address)?;
    process.wait_children(WORKERS)?;
    Ok(Server::new(name, address, process, None))
}
