// swift-tools-version: 6.1

import PackageDescription

let features: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "martlet",
    targets: [
        .target(name: "Tensors", swiftSettings: features),
        .target(name: "WireFormat", dependencies: ["Tensors"], swiftSettings: features),
        .testTarget(name: "TensorsTests", dependencies: ["Tensors"], swiftSettings: features),
    ]
)
