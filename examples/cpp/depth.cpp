// Depth of one set of views with an engine of a bundle, without Python.
//
//   depth ENGINE IMAGES FOCAL... > DEPTH
//
// ENGINE  what engine_of.py took out of the engine store
// IMAGES  uint8 [V, H, W, 3], RGB, at network size, views in ring order, as raw bytes
// FOCAL   fx of each view in pixels of the network-size image
// DEPTH   float32 [V, H, W], metres along the optical axis, as raw bytes
//
// An engine is native code: load none that others may write to.

#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using nvinfer1::DataType;

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << message << '\n';
    }
};

void check(cudaError_t code, const char* doing) {
    if (code != cudaSuccess) throw std::runtime_error(std::string(doing) + ": " + cudaGetErrorString(code));
}

std::vector<char> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

void refuse_others(const std::string& path) {
    struct stat about {};
    if (stat(path.c_str(), &about) != 0) throw std::runtime_error(path + ": is missing");
    if (about.st_uid != geteuid() || (about.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        throw std::runtime_error(path + ": others may write to it, and an engine is native code");
}

// What the model contract says of a tensor.
struct Port {
    DataType type;
    int32_t rank;
    nvinfer1::TensorIOMode mode;
};

const std::map<std::string, Port> contract = {
    {"images", {DataType::kUINT8, 4, nvinfer1::TensorIOMode::kINPUT}},
    {"focal", {DataType::kFLOAT, 1, nvinfer1::TensorIOMode::kINPUT}},
    {"depth", {DataType::kFLOAT, 3, nvinfer1::TensorIOMode::kOUTPUT}},
};

size_t bytes(const nvinfer1::Dims& shape, DataType type) {
    size_t count = type == DataType::kUINT8 ? 1 : 4;
    for (int32_t i = 0; i < shape.nbDims; ++i) count *= static_cast<size_t>(shape.d[i]);
    return count;
}

// `confidence` and whatever else an engine gives beyond the contract has its memory too, and is not read.
void refuse_strangers(const nvinfer1::ICudaEngine& engine) {
    for (const auto& [name, port] : contract) {
        const auto shape = engine.getTensorShape(name.c_str());
        if (engine.getTensorIOMode(name.c_str()) != port.mode || shape.nbDims != port.rank ||
            engine.getTensorDataType(name.c_str()) != port.type)
            throw std::runtime_error(name + " is not what the model contract says: is this an engine of a bundle?");
    }
}

struct DeviceFree {
    void operator()(void* pointer) const { cudaFree(pointer); }
};
using Device = std::unique_ptr<void, DeviceFree>;

Device device(size_t size) {
    void* pointer = nullptr;
    check(cudaMalloc(&pointer, size), "allocating");
    return Device(pointer);
}

void run(const std::vector<std::string>& arguments) {
    refuse_others(arguments[0]);
    Logger logger;
    const auto plan = read(arguments[0]);
    const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    if (!runtime) throw std::runtime_error("TensorRT cannot be started");
    const std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine) throw std::runtime_error("TensorRT cannot load the engine: finalise the bundle on this machine");
    refuse_strangers(*engine);
    const std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    if (!context) throw std::runtime_error("TensorRT has no room to run the engine");

    const auto images = read(arguments[1]);
    std::vector<float> focal;
    for (size_t i = 2; i < arguments.size(); ++i) focal.push_back(std::stof(arguments[i]));
    const auto shape = engine->getTensorShape("depth");
    std::vector<float> depth(bytes(shape, DataType::kFLOAT) / sizeof(float));
    if (images.size() != bytes(engine->getTensorShape("images"), DataType::kUINT8) ||
        static_cast<int64_t>(focal.size()) != static_cast<int64_t>(shape.d[0]))
        throw std::runtime_error("images or focal lengths are not those of " + std::to_string(shape.d[0]) + " views of " +
                                 std::to_string(shape.d[2]) + "x" + std::to_string(shape.d[1]));

    std::map<std::string, Device> memory;
    for (int32_t i = 0; i < engine->getNbIOTensors(); ++i) {
        const char* name = engine->getIOTensorName(i);
        memory[name] = device(bytes(engine->getTensorShape(name), engine->getTensorDataType(name)));
        if (!context->setTensorAddress(name, memory[name].get())) throw std::runtime_error("TensorRT takes no memory");
    }
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream), "making a stream");
    check(cudaMemcpyAsync(memory["images"].get(), images.data(), images.size(), cudaMemcpyHostToDevice, stream), "copying");
    check(cudaMemcpyAsync(memory["focal"].get(), focal.data(), focal.size() * sizeof(float), cudaMemcpyHostToDevice, stream),
          "copying");
    if (!context->enqueueV3(stream)) throw std::runtime_error("TensorRT failed");
    check(cudaMemcpyAsync(depth.data(), memory["depth"].get(), depth.size() * sizeof(float), cudaMemcpyDeviceToHost, stream),
          "copying");
    check(cudaStreamSynchronize(stream), "waiting");
    cudaStreamDestroy(stream);
    std::cout.write(reinterpret_cast<const char*>(depth.data()),
                    static_cast<std::streamsize>(depth.size() * sizeof(float)));
    if (!std::cout.flush()) throw std::runtime_error("standard output cannot be written");
}

}  // namespace

int main(int count, char** values) {
    if (count < 4) {
        std::cerr << "usage: depth ENGINE IMAGES FOCAL... > DEPTH\n";
        return 2;
    }
    try {
        run({values + 1, values + count});
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 5;
    }
    return 0;
}
