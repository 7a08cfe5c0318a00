[inputs: ["*.{ex,exs}", ".formatter.exs"]]
