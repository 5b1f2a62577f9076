from weavemw.__main__ import main

main()
