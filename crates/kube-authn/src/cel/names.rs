//! Names in expressions that are not functions of this module: types, and functions that only
//! kube-apiserver has.

use super::types::Type;

/// Returns the type with this name.
pub(super) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "type" => Type::Meta(Box::new(Type::Dyn)),
        _ => return None,
    })
}

/// Distinguishes functions of kube-apiserver that are not supported here from undefined ones.
pub(super) fn about(name: &str) -> &'static str {
    const MISSING: &[&str] = &[
        "format",
        "format.named",
        "sortBy",
        "transformList",
        "transformMap",
        "transformMapEntry",
        "url",
        "isURL",
        "ip",
        "isIP",
        "ip.isCanonical",
        "cidr",
        "isCIDR",
        "quantity",
        "isQuantity",
        "semver",
        "isSemver",
        "duration",
        "timestamp",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
    ];
    let is_format = name.starts_with("format.");
    if is_format || MISSING.contains(&name) { ": this proxy does not support it" } else { "" }
}
