// An app imports this module and has all that its interface speaks of.
@_exported public import MartletTransport
@_exported public import Tensors
@_exported public import TrainerInterface

@_exported public import struct Logging.Logger

#if BuiltInModels
@_exported public import LocalTraining
#endif
