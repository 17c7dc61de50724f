//! Builds workers and runs them: everything that starts another process.
//!
//! [`build`] makes one binary per allocator with the cargo that the driver was started by; [`run`]
//! starts one of them for one run and reads its line; [`server`] does the same for servers;
//! [`step`] counts a worker's instructions; [`order`] says who runs when; [`host`] describes the
//! machine for the reports.

pub mod build;
pub mod host;
pub mod order;
pub mod run;
pub mod server;
pub mod step;
