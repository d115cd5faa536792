// An app that imports this module can also name the types of `TrainerInterface`.
@_exported public import TrainerInterface
