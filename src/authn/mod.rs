//! Who is calling: client certificates, bearer tokens, and anonymous (kube-apiserver's chain).

mod user;

pub use user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, UserInfo};
