//! Credentials that end and are renewed before they do, once for the whole host.
//!
//! It says when to renew, who does it, and what is kept where. How a token is asked for is an [`Exchange`]'s affair.

mod exchange;

pub use exchange::{Exchange, ExchangeError, Granted};
