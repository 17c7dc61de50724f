//! Participants, guards and retire batches on crossbeam-epoch, with the statistics it lacks.
