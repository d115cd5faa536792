// A program imports this module and has all that its interface speaks of.
@_exported public import MartletTransport
@_exported public import WireFormat
