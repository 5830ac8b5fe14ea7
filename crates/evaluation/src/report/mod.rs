//! The report: one HTML file that needs nothing else, on a phone, on a screen or on paper; and the same answers for a terminal.

mod criteria;
mod kernels;
mod page;
mod section;
mod summary;
mod table;
mod trust;

pub use page::html;
pub use summary::summary;
