//! Rows of the table for credentials in headers: bearer tokens, WebSocket tokens, and headers of
//! front proxies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::table::{Shown, Table};
use crate::support::proxy::Proxy;

/// The `--token-auth-file` of the table.
pub const TOKENS: &str = concat!(
    "carol-token,carol,uid-carol,\"dev,team-b\"\n",
    "t1,u1,uid1\nt4,u4,uid4,\"g2\"\nt5,u5,uid5,g5,x,y\nt6,u6,uid6,\n,u8,uid8\n",
    "again,first,1\nagain,second,2\n\"a\"\"b,c\",quoted,\n",
);

const ANONYMOUS: &str = "system:anonymous [system:unauthenticated]";
const CAROL: &str = "carol uid=uid-carol [dev,team-b,+]";

/// Lines of the token file.
pub async fn static_tokens(table: &mut Table, proxy: &Proxy) {
    for (what, token, expected) in [
        ("no groups", "t1", "u1 uid=uid1 [+]"),
        ("two groups, quoted", "carol-token", CAROL),
        ("one group, quoted", "t4", "u4 uid=uid4 [g2,+]"),
        ("more columns", "t5", "u5 uid=uid5 [g5,+]"),
        ("empty cell of groups", "t6", "u6 uid=uid6 [,+]"),
        ("in two lines", "again", "second uid=2 [+]"),
        ("quoted, with quote and comma", "a\"b,c", "quoted [+]"),
        ("unknown", "t2", "401"),
        ("only its beginning", "carol-toke", "401"),
        ("with more behind it", "carol-token2", "401"),
        ("in other letters", "CAROL-TOKEN", "401"),
    ] {
        table.token(proxy, ("static token", what), token, expected).await;
    }
}

/// Forms of the `Authorization` header.
pub async fn bearer(table: &mut Table, proxy: &Proxy) {
    let cases: [(&str, &[&str], &str); 14] = [
        ("nothing", &[], ANONYMOUS),
        ("Bearer", &["Authorization: Bearer"], ANONYMOUS),
        ("Bearer and a blank", &["Authorization: Bearer "], ANONYMOUS),
        ("two blanks", &["Authorization: Bearer  carol-token"], ANONYMOUS),
        ("Bearer", &["Authorization: Bearer carol-token"], CAROL),
        ("bearer", &["authorization: bearer carol-token"], CAROL),
        ("BEARER", &["AUTHORIZATION: BEARER carol-token"], CAROL),
        ("blanks around", &["Authorization:   Bearer carol-token  "], CAROL),
        ("a word more", &["Authorization: Bearer carol-token extra"], CAROL),
        ("Bearer%20", &["Authorization: Bearer%20carol-token"], ANONYMOUS),
        ("no blank", &["Authorization: Bearercarol-token"], ANONYMOUS),
        ("Basic", &["Authorization: Basic Y2Fyb2w6eA=="], ANONYMOUS),
        (
            "two lines, the good one first",
            &["Authorization: Bearer carol-token", "Authorization: Bearer nonsense"],
            CAROL,
        ),
        (
            "two lines, the good one second",
            &["Authorization: Bearer nonsense", "Authorization: Bearer carol-token"],
            "401",
        ),
    ];
    for (what, headers, expected) in cases {
        table.row(proxy, ("bearer", what), Shown::None, headers, expected).await;
    }
}

/// Tokens among WebSocket sub-protocols.
pub async fn websocket(table: &mut Table, proxy: &Proxy) {
    let entry = |token: &[u8]| {
        format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(token))
    };
    let (good, bad) = (entry(b"carol-token"), entry(b"nonsense"));
    let cases: [(&str, bool, String, &str); 11] = [
        ("no upgrade", false, format!("{good}, dummy"), ANONYMOUS),
        ("no token", true, "dummy".into(), ANONYMOUS),
        ("alone", true, good.clone(), "401"),
        ("before another", true, format!("{good}, dummy"), CAROL),
        ("between others", true, format!("a, {good}, b"), CAROL),
        ("in a line of its own", true, format!("{good}\r\nSec-WebSocket-Protocol: dummy"), CAROL),
        ("twice", true, format!("{good}, {good}, dummy"), "401"),
        ("empty", true, format!("{}, dummy", entry(b"")), ANONYMOUS),
        ("padded", true, format!("{}=, dummy", entry(b"token")), "401"),
        ("not UTF-8", true, format!("{}, dummy", entry(&[0xff, 0xfe])), "401"),
        ("unknown", true, format!("{bad}, dummy"), "401"),
    ];
    for (what, upgrade, protocols, expected) in cases {
        let line = format!("Sec-WebSocket-Protocol: {protocols}");
        let mut headers = vec![line.as_str()];
        if upgrade {
            headers.extend(["Connection: Upgrade", "Upgrade: websocket"]);
            headers
                .extend(["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGVzdGluZ3Rlc3Rpbmc="]);
        }
        table.row(proxy, ("websocket", what), Shown::None, &headers, expected).await;
    }
}

/// Headers of front proxies. `proxy` also accepts user names in `X-Authenticated-As` and groups in
/// `X-Remote-Group-2`. `picky` only accepts front proxies with other names.
pub async fn front_proxies(table: &mut Table, proxy: &Proxy, picky: &Proxy) {
    let front = Shown::Corpus("front-proxy-client");
    const USER: &str = "X-Remote-User: erin";
    const TOKEN: &str = "Authorization: Bearer carol-token";
    let own = "alice [dev,team-a,+] ~credential-id=X509SHA256=own";
    let cases: [(&str, Shown<'_>, &[&str], &str); 24] = [
        ("user", front, &[USER], "erin [+]"),
        ("user in small letters", front, &["x-remote-user: erin"], "erin [+]"),
        ("nobody named", front, &[], "401"),
        ("empty name", front, &["X-Remote-User:"], "401"),
        ("second header of users", front, &["X-Authenticated-As: erin"], "erin [+]"),
        ("both headers of users", front, &["X-Authenticated-As: eve", USER], "erin [+]"),
        ("two users", front, &[USER, "X-Remote-User: eve"], "erin [+]"),
        ("groups", front, &[USER, "X-Remote-Group: b", "X-Remote-Group: a"], "erin [b,a,+]"),
        ("an empty group", front, &[USER, "X-Remote-Group:", "X-Remote-Group: a"], "erin [a,+]"),
        ("groups with a comma", front, &[USER, "X-Remote-Group: a,b"], "erin [a,b,+]"),
        (
            "groups of two headers",
            front,
            &[USER, "X-Remote-Group-2: c", "X-Remote-Group: a"],
            "erin [a,c,+]",
        ),
        (
            "system:masters",
            front,
            &[USER, "X-Remote-Group: system:masters"],
            "erin [system:masters,+]",
        ),
        ("uid", front, &[USER, "X-Remote-Uid: 7"], "erin uid=7 [+]"),
        (
            "extra, twice",
            front,
            &[USER, "X-Remote-Extra-Scopes: s1", "X-Remote-Extra-SCOPES: s2"],
            "erin [+] scopes=s1,s2",
        ),
        (
            "extra, encoded",
            front,
            &[USER, "X-Remote-Extra-Example.com%2fpercent%2520encoded: v"],
            "erin [+] example.com/percent%20encoded=v",
        ),
        (
            "extra, half encoded",
            front,
            &[USER, "X-Remote-Extra-Almost%zzpercent%xxencoded: v"],
            "erin [+] almost%zzpercent%xxencoded=v",
        ),
        ("before a token", front, &[USER, TOKEN], "erin [+]"),
        ("nobody named, but a token", front, &[TOKEN], CAROL),
        ("anonymous named", front, &["X-Remote-User: system:anonymous"], "system:anonymous []"),
        ("no certificate", Shown::None, &[USER], ANONYMOUS),
        ("no certificate, but a token", Shown::None, &[USER, TOKEN], CAROL),
        ("a user's certificate", Shown::Corpus("alice"), &[USER], own),
        ("rogue certificate", Shown::Corpus("rogue"), &[USER], "401"),
        ("rogue certificate and a token", Shown::Corpus("rogue"), &[USER, TOKEN], CAROL),
    ];
    for (what, shown, headers, expected) in cases {
        table.row(proxy, ("front proxy", what), shown, headers, expected).await;
    }
    let name = ("front proxy", "name not among --requestheader-allowed-names");
    table.row(picky, name, front, &[USER], "401").await;
}
