//! Functions of lists and sets.

use std::cmp::Ordering;

use super::cost;
use super::operators::{Outcome, add, compare, contains, equal, no_overload};
use super::value::{List, Value};

fn has_order(value: &Value) -> bool {
    matches!(
        value,
        Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
    )
}

/// Returns the only argument of a function, which must be a list of elements with an order.
fn ordered<'v>(name: &str, args: &'v [Value]) -> Result<&'v List, String> {
    match args {
        [Value::List(list)] if list.items.iter().all(has_order) => Ok(list),
        _ => Err(no_overload(name, args)),
    }
}

pub(super) fn is_sorted(args: &[Value]) -> Outcome {
    let list = ordered("isSorted", args)?;
    // Like in cel-go, lists with elements that cannot be compared with each other count as sorted.
    let sorted =
        list.items.windows(2).all(|pair| compare(&pair[0], &pair[1]) != Ok(Ordering::Greater));
    Ok(Value::Bool(sorted))
}

pub(super) fn min(args: &[Value]) -> Outcome {
    extreme("min", args, Ordering::Greater)
}

pub(super) fn max(args: &[Value]) -> Outcome {
    extreme("max", args, Ordering::Less)
}

/// Returns the element for which no other element compares as `worse`.
fn extreme(name: &str, args: &[Value], worse: Ordering) -> Outcome {
    let list = ordered(name, args)?;
    let mut items = list.items.iter();
    let first = items.next().ok_or_else(|| format!("{name} called on empty list"))?;
    let best =
        items.fold(first, |best, item| if compare(best, item) == Ok(worse) { item } else { best });
    Ok(best.clone())
}

fn sum_from(zero: Value, args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else { return Err(no_overload("sum", args)) };
    list.items.iter().try_fold(zero, |sum, item| add(&[sum, item.clone()]))
}

/// Returns the sum of a list; the first element determines the type.
pub(super) fn sum(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else { return Err(no_overload("sum", args)) };
    match list.items.first() {
        None | Some(Value::Int(_)) => sum_from(Value::Int(0), args),
        Some(Value::Uint(_)) => sum_uint(args),
        Some(Value::Double(_)) => sum_double(args),
        Some(_) => Err(no_overload("sum", args)),
    }
}

pub(super) fn sum_uint(args: &[Value]) -> Outcome {
    sum_from(Value::Uint(0), args)
}

pub(super) fn sum_double(args: &[Value]) -> Outcome {
    sum_from(Value::Double(0.0), args)
}

pub(super) fn sort(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else { return Err(no_overload("sort", args)) };
    let Some(first) = list.items.first() else { return Ok(Value::List(list.clone())) };
    let type_name = first.type_name();
    if !has_order(first) {
        return Err("list elements must be comparable".to_owned());
    }
    if list.items.iter().any(|item| item.type_name() != type_name) {
        return Err("list elements must have the same type".to_owned());
    }
    cost::charge_elements(list.items.len())?;
    let mut items = list.items.as_ref().clone();
    items.sort_by(|one, other| compare(one, other).unwrap_or(Ordering::Equal));
    Ok(Value::list(items))
}

pub(super) fn slice(args: &[Value]) -> Outcome {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return Err(no_overload("slice", args));
    };
    let range = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
    match range {
        Some((start, end)) if start <= end && end <= list.items.len() => {
            Ok(Value::list(list.indexed().skip(start).take(end - start).collect()))
        }
        _ => Err(format!("cannot slice({start}, {end}), list is length {}", list.items.len())),
    }
}

pub(super) fn flatten(args: &[Value]) -> Outcome {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return Err(no_overload("flatten", args)),
    };
    if depth < 0 {
        return Err("level must be non-negative".to_owned());
    }
    let mut items = Vec::new();
    flatten_into(&mut items, list, depth)?;
    Ok(Value::list(items))
}

fn flatten_into(items: &mut Vec<Value>, list: &List, depth: i64) -> Result<(), String> {
    cost::charge_elements(list.items.len())?;
    for item in list.items.iter() {
        match item {
            Value::List(inner) if depth > 0 => flatten_into(items, inner, depth - 1)?,
            other => items.push(other.clone()),
        }
    }
    Ok(())
}

pub(super) fn reverse(args: &[Value]) -> Outcome {
    match args {
        [Value::List(list)] => Ok(Value::list(list.indexed().rev().collect())),
        _ => Err(no_overload("reverse", args)),
    }
}

pub(super) fn distinct(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else { return Err(no_overload("distinct", args)) };
    if list.items.is_empty() {
        return Ok(Value::List(list.clone()));
    }
    let mut seen: Vec<Value> = Vec::new();
    for item in list.indexed() {
        cost::charge_elements(seen.len())?;
        if !seen.iter().any(|other| equal(&item, other) == Ok(true)) {
            seen.push(item);
        }
    }
    Ok(Value::list(seen))
}

pub(super) fn first(args: &[Value]) -> Outcome {
    match args {
        [Value::List(list)] => Ok(list.get(0).map_or(Value::Optional(None), Value::some)),
        _ => Err(no_overload("first", args)),
    }
}

pub(super) fn last(args: &[Value]) -> Outcome {
    match args {
        [Value::List(list)] => {
            let last = list.items.len().checked_sub(1).and_then(|last| list.get(last));
            Ok(last.map_or(Value::Optional(None), Value::some))
        }
        _ => Err(no_overload("last", args)),
    }
}

/// Returns the values of the non-empty optionals in a list.
pub(super) fn unwrap(args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else { return Err(no_overload("optional.unwrap", args)) };
    let mut values = Vec::new();
    for item in list.items.iter() {
        match item {
            Value::Optional(inner) => values.extend(inner.as_deref().cloned()),
            other => {
                return Err(format!("a value of type '{}' is not optional", other.type_name()));
            }
        }
    }
    Ok(Value::list(values))
}

/// Returns the integers from 0 up to a number, excluding it.
pub(super) fn range(args: &[Value]) -> Outcome {
    let [Value::Int(end)] = args else { return Err(no_overload("lists.range", args)) };
    cost::charge_elements(usize::try_from(*end).unwrap_or(0))?;
    Ok(Value::list((0..*end).map(Value::Int).collect()))
}

pub(super) fn index_of(list: &List, wanted: &Value) -> Value {
    let found = list.items.iter().position(|item| equal(item, wanted) == Ok(true));
    Value::Int(found.map_or(-1, |index| index as i64))
}

pub(super) fn last_index_of(list: &List, wanted: &Value) -> Value {
    let found = list.items.iter().rposition(|item| equal(item, wanted) == Ok(true));
    Value::Int(found.map_or(-1, |index| index as i64))
}

fn two_lists<'v>(name: &str, args: &'v [Value]) -> Result<(&'v List, &'v List), String> {
    match args {
        [Value::List(one), Value::List(other)] => {
            cost::charge_elements(one.items.len().saturating_mul(other.items.len()))?;
            Ok((one, other))
        }
        _ => Err(no_overload(name, args)),
    }
}

fn contains_all(list: &List, wanted: &List) -> bool {
    wanted.items.iter().all(|item| contains(list, item))
}

pub(super) fn sets_contains(args: &[Value]) -> Outcome {
    let (list, wanted) = two_lists("sets.contains", args)?;
    Ok(Value::Bool(contains_all(list, wanted)))
}

pub(super) fn sets_equivalent(args: &[Value]) -> Outcome {
    let (one, other) = two_lists("sets.equivalent", args)?;
    Ok(Value::Bool(contains_all(one, other) && contains_all(other, one)))
}

pub(super) fn sets_intersects(args: &[Value]) -> Outcome {
    let (one, other) = two_lists("sets.intersects", args)?;
    Ok(Value::Bool(one.items.iter().any(|item| contains(other, item))))
}
