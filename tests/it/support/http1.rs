//! An HTTP/1.1 client that sends exactly the given bytes and reads responses frame by frame.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client;

/// A connection, with bytes that were read but not used yet.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Names as received, values trimmed, in order.
    pub headers: Vec<(String, String)>,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The head.
    pub head: Head,
    /// The body without transfer coding.
    pub body: Vec<u8>,
}

impl Head {
    /// Returns all values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    /// Returns the first value of a header; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or("")
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").eq_ignore_ascii_case("chunked")
    }
}

impl Answer {
    /// Returns the body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Connection {
    /// Connects with TLS and offers only HTTP/1.1; `certificate` names one of the corpus.
    pub async fn open(addr: SocketAddr, certificate: Option<&str>) -> Result<Self> {
        Ok(Self::over(client::tls(addr, certificate, &[b"http/1.1"]).await?))
    }

    /// Uses an existing connection.
    pub fn over(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Connects with TLS without ALPN, like very old clients.
    pub async fn open_without_alpn(addr: SocketAddr, certificate: Option<&str>) -> Result<Self> {
        Ok(Self::over(client::tls(addr, certificate, &[]).await?))
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Returns the next head, including informational ones.
    pub async fn head(&mut self) -> Result<Head> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        parse_head(&String::from_utf8_lossy(&head))
    }

    /// Returns the next response, without informational ones.
    pub async fn answer(&mut self, method: &str) -> Result<Answer> {
        loop {
            let head = self.head().await?;
            if head.status >= 200 || head.status == 101 {
                let body = self.body(&head, method).await?;
                return Ok(Answer { head, body });
            }
        }
    }

    /// Returns the body that follows a head.
    pub async fn body(&mut self, head: &Head, method: &str) -> Result<Vec<u8>> {
        if method == "HEAD" || matches!(head.status, 101 | 204 | 304) {
            return Ok(Vec::new());
        }
        if head.is_chunked() {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk().await? {
                body.extend_from_slice(&chunk);
            }
            return Ok(body);
        }
        if let Ok(length) = head.get("content-length").parse::<usize>() {
            return self.exactly(length).await;
        }
        self.read_to_end().await
    }

    /// Returns the next chunk of a chunked body, `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let line = self.line().await?;
        let digits = line.split(';').next().unwrap_or("").trim();
        let length = usize::from_str_radix(digits, 16).map_err(|_| malformed(&line))?;
        if length == 0 {
            while !self.line().await?.is_empty() {}
            return Ok(None);
        }
        let chunk = self.exactly(length).await?;
        self.exactly(2).await?;
        Ok(Some(chunk))
    }

    /// Returns exactly `length` bytes.
    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Returns all bytes until the peer closes the connection.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>> {
        loop {
            match self.fill().await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the stream after an upgrade, and the bytes that were already read from it.
    pub fn into_stream(self) -> (TlsStream<TcpStream>, Vec<u8>) {
        (self.stream, self.buffer)
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Sends one request on a new connection. Returns its response.
pub async fn exchange(
    addr: SocketAddr,
    certificate: Option<&str>,
    request: &[u8],
) -> Result<Answer> {
    let mut connection = Connection::open(addr, certificate).await?;
    connection.send(request).await?;
    let method = request.split(|&byte| byte == b' ').next().unwrap_or(b"");
    connection.answer(&String::from_utf8_lossy(method)).await
}

/// Sends a GET on a new connection; `headers` are whole lines.
pub async fn get(
    addr: SocketAddr,
    certificate: Option<&str>,
    target: &str,
    headers: &[&str],
) -> Result<Answer> {
    exchange(addr, certificate, &request("GET", target, headers, b"")).await
}

/// Returns the bytes of a request with a `Host` and these header lines.
pub fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: kubernetes\r\n");
    for line in headers {
        text.push_str(line);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

fn parse_head(text: &str) -> Result<Head> {
    let mut lines = text.trim_end().split("\r\n");
    let first = lines.next().unwrap_or("");
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.filter(|_| first.starts_with("HTTP/1.")).ok_or_else(|| malformed(first))?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    Ok(Head { status, headers: lines.filter_map(header).collect() })
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed answer: {what:?}"))
}

/// Returns the position of `needle`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
