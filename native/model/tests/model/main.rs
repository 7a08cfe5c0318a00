//! The model keeps its promises, and breaks them where a rule is missing.

mod protocol;
mod rollback;
mod rules;
mod support;
