#include "src/cli/app.h"

int main(int argc, char** argv) { return loopserve::RunApp(argc, argv); }
