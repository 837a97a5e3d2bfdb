//! The broker's side of SASL on the wire: `SaslHandshake` and `SaslAuthenticate` (version 1) with
//! PLAIN (RFC 4616), SCRAM (RFC 5802, RFC 7677) and OAUTHBEARER (RFC 7628).

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HANDSHAKE: i16 = 17;
const AUTHENTICATE: i16 = 36;
const UNSUPPORTED_MECHANISM: i16 = 33;
const AUTHENTICATION_FAILED: i16 = 58;

const SALT: &[u8] = b"salt of the test";
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SERVER_NONCE: &str = "server-nonce";

/// The one account that a server knows, and the one mechanism that it supports.
pub(crate) struct Accounts {
    pub(crate) mechanism: &'static str,
    pub(crate) username: &'static str,
    pub(crate) secret: &'static str,
}

struct Scram {
    hash: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

/// Reads a request; returns its API key, its correlation ID, and its body.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<(i16, i32, Vec<u8>)> {
    let length = stream.read_i32().await.ok()?;
    let mut frame = vec![0; usize::try_from(length).ok()?];
    stream.read_exact(&mut frame).await.ok()?;
    let mut rest = &frame[..];
    let key = rest.read_i16().await.ok()?;
    assert_eq!(rest.read_i16().await.ok()?, 1, "the version of API {key}");
    let correlation = rest.read_i32().await.ok()?;
    let client_id = usize::try_from(rest.read_i16().await.ok()?).ok()?;
    Some((key, correlation, rest[client_id..].to_vec()))
}

async fn respond(stream: &mut (impl AsyncWrite + Unpin), correlation: i32, body: &[u8]) {
    let mut frame = (4 + body.len() as i32).to_be_bytes().to_vec();
    frame.extend(correlation.to_be_bytes());
    frame.extend(body);
    let _ = stream.write_all(&frame).await;
    let _ = stream.flush().await;
}

/// Authenticates a client; `None` if it is not the one that is known.
pub(crate) async fn authenticate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    accounts: &Accounts,
) -> Option<()> {
    let (key, correlation, body) = read(stream).await?;
    assert_eq!(key, HANDSHAKE);
    let is_supported = &body[2..] == accounts.mechanism.as_bytes();
    let error = if is_supported { 0 } else { UNSUPPORTED_MECHANISM };
    let mut response = error.to_be_bytes().to_vec();
    response.extend(1i32.to_be_bytes());
    response.extend((accounts.mechanism.len() as i16).to_be_bytes());
    response.extend(accounts.mechanism.as_bytes());
    respond(stream, correlation, &response).await;
    if !is_supported {
        return None;
    }
    let exchange: Exchange = match accounts.mechanism {
        "PLAIN" => {
            let expected = format!("\0{}\0{}", accounts.username, accounts.secret);
            let (correlation, token) = receive(stream).await?;
            match token == expected.as_bytes() {
                true => Ok((correlation, Vec::new())),
                false => Err(correlation),
            }
        }
        "OAUTHBEARER" => {
            let (correlation, token) = receive(stream).await?;
            let text = String::from_utf8(token).unwrap();
            match text.contains(&format!("\x01auth=Bearer {}\x01", accounts.secret)) {
                true => Ok((correlation, Vec::new())),
                false => {
                    challenge(stream, correlation, br#"{"status":"invalid_token"}"#).await;
                    Err(receive(stream).await?.0)
                }
            }
        }
        "SCRAM-SHA-256" => {
            let algorithms = Scram {
                hash: &digest::SHA256,
                hmac: hmac::HMAC_SHA256,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
            };
            scram(stream, accounts, &algorithms).await?
        }
        "SCRAM-SHA-512" => {
            let algorithms = Scram {
                hash: &digest::SHA512,
                hmac: hmac::HMAC_SHA512,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
            };
            scram(stream, accounts, &algorithms).await?
        }
        other => panic!("{other}"),
    };
    match exchange {
        Ok((correlation, last)) => {
            challenge(stream, correlation, &last).await;
            Some(())
        }
        Err(correlation) => {
            let message = b"Authentication failed";
            let mut response = AUTHENTICATION_FAILED.to_be_bytes().to_vec();
            response.extend((message.len() as i16).to_be_bytes());
            response.extend(message);
            response.extend(0i32.to_be_bytes());
            response.extend(0i64.to_be_bytes());
            respond(stream, correlation, &response).await;
            None
        }
    }
}

/// Reads one message of the client: its correlation ID and the bytes of the mechanism.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Option<(i32, Vec<u8>)> {
    let (key, correlation, body) = read(stream).await?;
    assert_eq!(key, AUTHENTICATE);
    Some((correlation, body[4..].to_vec()))
}

/// Sends bytes of the mechanism without an error.
async fn challenge(stream: &mut (impl AsyncWrite + Unpin), correlation: i32, bytes: &[u8]) {
    let mut response = 0i16.to_be_bytes().to_vec();
    response.extend((-1i16).to_be_bytes());
    response.extend((bytes.len() as i32).to_be_bytes());
    response.extend(bytes);
    response.extend(0i64.to_be_bytes());
    respond(stream, correlation, &response).await;
}

/// The correlation ID of the last request, with the last message of the server if the client has
/// proved that it knows the password.
type Exchange = Result<(i32, Vec<u8>), i32>;

async fn scram(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    accounts: &Accounts,
    algorithms: &Scram,
) -> Option<Exchange> {
    let (correlation, first) = receive(stream).await?;
    let first = String::from_utf8(first).unwrap();
    let bare = first.strip_prefix("n,,").unwrap();
    let (user, nonce) = bare.strip_prefix("n=").unwrap().split_once(",r=").unwrap();
    let nonce = format!("{nonce}{SERVER_NONCE}");
    let server_first = format!("r={nonce},s={},i={ITERATIONS}", BASE64_STANDARD.encode(SALT));
    challenge(stream, correlation, server_first.as_bytes()).await;

    let (correlation, last) = receive(stream).await?;
    let last = String::from_utf8(last).unwrap();
    let (without_proof, proof) = last.split_once(",p=").unwrap();
    assert_eq!(without_proof, format!("c=biws,r={nonce}"));
    let proof = BASE64_STANDARD.decode(proof).unwrap();
    let message = format!("{bare},{server_first},{without_proof}");
    let mut salted = vec![0; algorithms.hash.output_len()];
    let secret = accounts.secret.as_bytes();
    pbkdf2::derive(algorithms.pbkdf2, ITERATIONS, SALT, secret, &mut salted);
    let sign = |key: &[u8], text: &[u8]| {
        hmac::sign(&hmac::Key::new(algorithms.hmac, key), text).as_ref().to_vec()
    };
    let stored = digest::digest(algorithms.hash, &sign(&salted, b"Client Key"));
    let signature = sign(stored.as_ref(), message.as_bytes());
    let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let is_known = user == accounts.username
        && digest::digest(algorithms.hash, &client_key).as_ref() == stored.as_ref();
    if !is_known {
        return Some(Err(correlation));
    }
    let server_key = sign(&salted, b"Server Key");
    let verifier = BASE64_STANDARD.encode(sign(&server_key, message.as_bytes()));
    Some(Ok((correlation, format!("v={verifier}").into_bytes())))
}
