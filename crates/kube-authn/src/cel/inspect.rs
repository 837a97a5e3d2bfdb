//! Determines which variables an expression reads, and with which texts its result can begin.

use ::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators as op};

/// Returns whether the expression contains `variable.field`, `variable.?field`, or
/// `has(variable.field)`.
pub(super) fn selects(expr: &IdedExpr, variable: &str, field: &str) -> bool {
    let is_variable = |e: &IdedExpr| matches!(&e.expr, Expr::Ident(name) if name == variable);
    let is_field = |e: &IdedExpr| matches!(&e.expr, Expr::Literal(LiteralValue::String(text)) if text.inner() == field);
    let found = match &expr.expr {
        Expr::Select(select) => is_variable(&select.operand) && select.field == field,
        Expr::Call(call) if call.func_name == op::OPT_SELECT => {
            matches!(call.args.as_slice(), [of, name] if is_variable(of) && is_field(name))
        }
        _ => false,
    };
    found || children(expr).into_iter().any(|child| selects(child, variable, field))
}

/// Returns the literal texts with which the resulting text, or an element of the resulting list,
/// can begin.
pub(super) fn beginnings(expr: &IdedExpr) -> Vec<String> {
    let of_all = |parts: &[IdedExpr]| parts.iter().flat_map(beginnings).collect();
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => vec![text.inner().to_owned()],
        Expr::List(list) => of_all(&list.elements),
        // For `a ? b : c`, the beginnings of `b` and `c`.
        Expr::Call(call) if call.func_name == op::CONDITIONAL => of_all(&call.args[1..]),
        Expr::Call(call) if call.func_name == op::ADD => match call.args.as_slice() {
            // For lists, both operands count; for texts only the first.
            [one, other] if !matches!(one.expr, Expr::Literal(_)) => {
                let is_list = matches!(other.expr, Expr::List(_) | Expr::Comprehension(_));
                let rest = if is_list { beginnings(other) } else { Vec::new() };
                [beginnings(one), rest].concat()
            }
            [one, _] => beginnings(one),
            _ => Vec::new(),
        },
        Expr::Comprehension(comprehension) => beginnings(&comprehension.loop_step),
        _ => Vec::new(),
    }
}

fn children(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Comprehension(loops) => vec![
            &loops.iter_range,
            &loops.accu_init,
            &loops.loop_cond,
            &loops.loop_step,
            &loops.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&*select.operand],
        Expr::Map(map) => map.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect(),
        Expr::Struct(object) => {
            object.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect()
        }
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}
