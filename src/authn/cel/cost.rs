//! What an evaluation may cost. Claims come from outside; an expression that is quick on most of
//! them must not be slow, or fill the memory, on those that somebody made for it.
//!
//! Loops and whatever makes values that grow are charged: by the element, by the byte.

use std::cell::Cell;

use ::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators};
use ::cel::common::types::{CelList, CelString, DYN_TYPE};
use ::cel::common::value::CowVal;
use ::cel::{DeclarationError, Env, ExecutionError};

/// All that one evaluation may cost: 250,000 rounds of a loop, or 4 MB of text.
const LIMIT: u64 = 4_000_000;
/// An element of a list.
const ELEMENT: u64 = 16;
/// Stands around what is charged. No expression can contain it, `@` is no letter.
const CHARGE: &str = "@charge";

thread_local! {
    /// What the evaluation under way on this thread may still cost.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Begins an evaluation on this thread; it ends before this thread does anything else.
pub(super) fn begin() {
    LEFT.set(LIMIT);
}

/// Whether the evaluation has cost more than it may.
pub(super) fn is_spent() -> bool {
    LEFT.get() == 0
}

/// Charges for so many bytes of text.
pub(super) fn charge_bytes(bytes: usize) -> Result<(), ExecutionError> {
    charge(bytes as u64)
}

/// Charges for so many elements.
pub(super) fn charge_elements(elements: usize) -> Result<(), ExecutionError> {
    charge((elements as u64).saturating_mul(ELEMENT))
}

fn charge(cost: u64) -> Result<(), ExecutionError> {
    let left = LEFT.get().saturating_sub(cost);
    LEFT.set(left);
    if left > 0 { Ok(()) } else { Err(ExecutionError::function_error("cost", "limit exceeded")) }
}

/// Makes `@charge` known.
pub(super) fn register(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(CHARGE, "charge_dyn", vec![DYN_TYPE], charge_for)
}

fn charge_for<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.remove(0);
    if let Some(text) = value.downcast_ref::<CelString>() {
        charge_bytes(text.inner().len())?;
    } else if let Some(list) = value.downcast_ref::<CelList>() {
        charge_elements(list.inner().len())?;
    } else if let Some(sizer) = value.as_sizer() {
        charge_elements(usize::try_from(*sizer.size().inner()).unwrap_or(usize::MAX))?;
    }
    Ok(value)
}

/// Puts charges around what loops go over, and around what `+` gives.
pub(super) fn instrument(expr: &mut IdedExpr) {
    match &mut expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| instrument(target));
            call.args.iter_mut().for_each(instrument);
            // What a macro appends its results by costs no more than the results; the interpreter
            // knows its form.
            let is_macros = call
                .args
                .first()
                .is_some_and(|arg| matches!(&arg.expr, Expr::Ident(name) if name.starts_with('@')));
            if call.func_name == operators::ADD && !is_macros {
                wrap(expr);
            }
        }
        Expr::Comprehension(comprehension) => {
            for part in [
                &mut comprehension.iter_range,
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                instrument(part);
            }
            wrap(&mut comprehension.iter_range);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(instrument),
        Expr::Select(select) => instrument(&mut select.operand),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    instrument(&mut entry.key);
                    instrument(&mut entry.value);
                }
            }
        }
        // Refused before.
        Expr::Struct(_) => {}
    }
}

fn wrap(expr: &mut IdedExpr) {
    let id = expr.id;
    let inner = std::mem::take(expr);
    let call = CallExpr { func_name: CHARGE.to_owned(), target: None, args: vec![inner] };
    *expr = IdedExpr { id, expr: Expr::Call(call) };
}
