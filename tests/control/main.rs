//! What can be done to jobs while they live: verbs in every state, random verbs against a model, the order in which jobs
//! take their turn, clients, and how many jobs are held. All of it needs FUSE.

mod bench;
mod clients;
mod dropping;
mod model;
mod order;
mod scripts;
mod verbs;
