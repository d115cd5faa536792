// An app that imports this module has the trainer's side as well.
@_exported public import TrainerInterface
