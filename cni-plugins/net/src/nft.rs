//! nf_tables: rules as plain data, carried out in atomic batches.
//!
//! A [`Batch`] is a list of [`Command`]s; building one touches nothing, so what a plugin would do can be looked at in a
//! test. [`Nft::apply`] hands it to the kernel in one message: all of it happens or none of it.
//!
//! Two processes that look first and change then would undo each other's work. A batch can therefore name the
//! [`Generation`] of the rule set that it was decided on; the kernel refuses it when anything changed since, and
//! [`Nft::decide`] looks and decides again.

mod attribute;
mod command;
mod expression;
mod listing;
mod socket;

pub(crate) use attribute::Attributes;
pub use command::{Batch, Chain, Command, Data, Element, Family, Hook, HookPoint, MapData, Rule, Set, Type, Verdict};
pub use expression::{Base, CtKey, Expression, MetaKey, Operator, Register};
pub use listing::Listed;
pub use socket::{Generation, Nft};
