//! A model of HotPatch's cluster protocol, small enough that all that can happen is looked at.
//!
//! One operation over a few nodes, with messages, crashes, cut connections and failures at every
//! point. [`explore`] visits every state that can be reached, shortest ways first, and stops at the
//! first one that breaks a promise, with the way to it. Each rule of the protocol can be left out
//! ([`Rules::without`]), to see that the promises hang on it.
//!
//! | module | concept |
//! |---|---|
//! | [`rules`] | the protocol as a list of rules, and what faults there may be |
//! | [`state`] | nodes, coordinators, messages under way; packed into a few words |
//! | [`message`] | what coordinators and agents say to each other |
//! | [`action`] | what can happen next, in words |
//! | [`step`] | the protocol itself: the states that follow a state |
//! | [`check`] | the promises |
//! | [`explore`] | breadth first, with the way to what is found |

#![forbid(unsafe_code)]

pub mod action;
mod bits;
pub mod check;
pub mod explore;
pub mod message;
pub mod rules;
mod seen;
mod show;
pub mod state;
pub mod step;

pub use explore::{Outcome, Violation, explore};
pub use rules::{Config, Faults, Rule, Rules, Second};
